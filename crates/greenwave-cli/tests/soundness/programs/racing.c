/* Opens a file by a path that another thread changes all the time. Prints the content of the second
   file, when it gets hold of it. */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>
static volatile char path[] = "in/a.txt\0";
static volatile int ended;
static void set(const char *to) {
    for (int at = 0; at < 9; at++) path[at] = to[at];
}
static void *change(void *unused) {
    while (!ended) {
        set("in/a.txt");
        set("data.txt");
    }
    return unused;
}
int main(void) {
    pthread_t thread;
    char text = 'a';
    pthread_create(&thread, 0, change, 0);
    for (int at = 0; at < 100000 && (text == 'a' || text == 0); at++) {
        int in = open((const char *)path, O_RDONLY);
        if (in < 0) continue;
        if (read(in, &text, 1) != 1) text = 0;
        close(in);
    }
    ended = 1;
    pthread_join(thread, 0);
    return write(1, &text, 1) != 1;
}
