/* Queries the file system of a file. */
#include <unistd.h>
#include <sys/syscall.h>
int main(void) { char room[256]; return syscall(SYS_statfs, "data.txt", room) != 0; }
