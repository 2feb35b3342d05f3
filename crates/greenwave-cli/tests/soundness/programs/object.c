/* Creates, reads, writes or removes a kernel object. The key derives from the inode of test.sh, which is unique
   among the probes that run at the same time. */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int count, char **words) {
    const char *kind = words[1], *what = words[2];
    int makes = !strcmp(what, "make"), removes = !strcmp(what, "remove"), reads = !strcmp(what, "read");
    struct stat about;
    char name[64];
    if (count != 3 || stat("test.sh", &about) != 0) return 2;
    key_t key = 0x67000000 | (about.st_ino & 0xffffff);
    snprintf(name, sizeof name, "/greenwave-probe-%lu", (unsigned long)about.st_ino);
    int flags = makes ? IPC_CREAT | IPC_EXCL | 0600 : 0;
    if (!strcmp(kind, "sem")) {
        int id = semget(key, 1, flags);
        return removes ? semctl(id, 0, IPC_RMID) != 0 : id < 0;
    }
    if (!strcmp(kind, "msg")) {
        int id = msgget(key, flags);
        return removes ? msgctl(id, IPC_RMID, 0) != 0 : id < 0;
    }
    if (!strcmp(kind, "mq")) {
        if (removes) return mq_unlink(name) != 0;
        return mq_open(name, makes ? O_CREAT | O_EXCL | O_RDWR : O_RDONLY, 0600, 0) < 0;
    }
    char *memory;
    if (!strcmp(kind, "shm")) {
        int id = shmget(key, 4096, flags);
        if (id < 0) return 1;
        if (removes) return shmctl(id, IPC_RMID, 0) != 0;
        memory = shmat(id, 0, 0);
    } else {
        if (removes) return shm_unlink(name) != 0;
        int file = shm_open(name, makes ? O_CREAT | O_EXCL | O_RDWR : O_RDWR, 0600);
        if (file < 0 || (makes && ftruncate(file, 4096) != 0)) return 1;
        memory = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    if (memory == (char *)-1) return 1;
    if (reads) return *memory != '1';
    if (!makes) *memory = *what;
    return 0;
}
