/* Opens a file without access rights and reads it through its descriptor. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    char path[64], c = 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", open("data.txt", O_PATH));
    return read(open(path, O_RDONLY), &c, 1) != 1 || c != '1';
}
