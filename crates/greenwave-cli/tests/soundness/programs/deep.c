/* Reads a file at a path longer than the system allows. Writes it if given a text and a directory. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int count, char **words) {
    char name[201], c = 0;
    memset(name, 'd', 200);
    name[200] = 0;
    if (count > 2 && chdir(words[2]) != 0) return 2;
    for (int at = 0; at < 25; at++) {
        if (count > 1) mkdir(name, 0755);
        if (chdir(name) != 0) return 2;
    }
    if (count > 1) return write(open("data.txt", O_CREAT | O_WRONLY, 0644), words[1], 1) != 1;
    return read(open("data.txt", O_RDONLY), &c, 1) != 1 || c != '1';
}
