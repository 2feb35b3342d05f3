/* Uses a facility by which files can be read without opening them by their paths, and reads
   `data.txt`. */
#include <fcntl.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int count, char **words) {
    char text;
    char parameters[120] = {0};
    if (count == 2 && !strcmp(words[1], "fanotify")) {
        int watch = fanotify_init(FAN_CLASS_NOTIF, O_RDONLY);
        fanotify_mark(watch, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "data.txt");
    } else if (syscall(SYS_io_uring_setup, 4, parameters) >= 0) {
        return 2;
    }
    int in = open("data.txt", O_RDONLY);
    return in < 0 || read(in, &text, 1) != 1 || write(1, &text, 1) != 1;
}
