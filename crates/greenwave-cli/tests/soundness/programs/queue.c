/* Fills, empties or reads a message queue of System V or POSIX. `take` receives a message and sends it
   again. The key derives from the inode of test.sh. */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/stat.h>
struct message {
    long type;
    char text;
};
int main(int count, char **words) {
    struct stat about;
    struct message message = {1, 0};
    char name[64], text[64];
    if (count < 3 || stat("test.sh", &about) != 0) return 2;
    int takes = !strcmp(words[2], "take"), removes = !strcmp(words[2], "remove");
    if (!strcmp(words[1], "msg")) {
        int id = msgget(0x68000000 | (about.st_ino & 0xffffff), IPC_CREAT | 0600);
        if (removes) return msgctl(id, IPC_RMID, 0) != 0;
        if (msgrcv(id, &message, 1, 0, IPC_NOWAIT) != 1 && takes) return 1;
        if (!takes) message.text = *words[2];
        message.type = 1;
        printf("%c\n", message.text);
        return msgsnd(id, &message, 1, 0) != 0;
    }
    struct mq_attr attributes = {0, 4, 64, 0};
    snprintf(name, sizeof name, "/greenwave-queue-%lu", (unsigned long)about.st_ino);
    if (removes) return mq_unlink(name) != 0;
    mqd_t queue = mq_open(name, O_CREAT | O_RDWR | O_NONBLOCK, 0600, &attributes);
    if (mq_receive(queue, text, sizeof text, 0) < 0 && takes) return 1;
    if (!takes) *text = *words[2];
    printf("%c\n", *text);
    return mq_send(queue, text, 1, 0) != 0;
}
