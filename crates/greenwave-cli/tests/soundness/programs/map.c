/* Writes a file through a memory map. */
#include <fcntl.h>
#include <sys/mman.h>
int main(int count, char **words) {
    char *text = mmap(0, 1, PROT_READ | PROT_WRITE, MAP_SHARED, open(words[1], O_RDWR), 0);
    if (text == MAP_FAILED) return 1;
    *text = '2';
    return 0;
}
