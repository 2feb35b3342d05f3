/* Changes the mode of a file. */
#include <sys/stat.h>
int main(void) { return chmod("data.txt", 0644) != 0; }
