/* A process outside of the test that reads a file for it, and the test's side of each way to get at
   the content.

   `serve KIND FILE` runs in the background until `stop` or a minute has passed. It serves at a Unix
   socket (`unix`; `fd` and `memfd` send a descriptor instead of the content), an abstract name
   (`abstract`), a port (`tcp`, `udp`) or a named pipe (`pipe`). Kind `hold` keeps the file open and
   mapped. `ask KIND` prints the content. All files are in `../outside`. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static const char *kind, *file;

static int is(const char *other) { return !strcmp(kind, other); }

static void fail(const char *what) {
    perror(what);
    exit(2);
}

static void put(const char *path, unsigned long number) {
    FILE *out = fopen(path, "w");
    if (!out) fail(path);
    fprintf(out, "%lu", number);
    fclose(out);
}

static unsigned long get(const char *path) {
    unsigned long number = 0;
    FILE *in = fopen(path, "r");
    if (!in || fscanf(in, "%lu", &number) != 1) fail(path);
    fclose(in);
    return number;
}

static int stream(void) { return is("udp") ? SOCK_DGRAM : SOCK_STREAM; }

/* Creates a socket, and the address of the server in it. */
static int create(struct sockaddr_storage *address, socklen_t *length) {
    memset(address, 0, sizeof *address);
    if (is("tcp") || is("udp")) {
        struct sockaddr_in *in = (void *)address;
        in->sin_family = AF_INET;
        in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        *length = sizeof *in;
        return socket(AF_INET, stream(), 0);
    }
    struct sockaddr_un *un = (void *)address;
    un->sun_family = AF_UNIX;
    if (is("abstract")) {
        struct stat about;
        if (stat("test.sh", &about) != 0) fail("test.sh");
        int written = snprintf(un->sun_path + 1, 64, "greenwave-probe-%lu", (unsigned long)about.st_ino);
        *length = offsetof(struct sockaddr_un, sun_path) + 1 + written;
    } else {
        strcpy(un->sun_path, "../outside/socket");
        *length = sizeof *un;
    }
    return socket(AF_UNIX, stream(), 0);
}

static void send_descriptor(int to, int descriptor) {
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {"x", 1};
    struct msghdr message = {0, 0, &part, 1, control, sizeof control, 0};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    if (sendmsg(to, &message, MSG_NOSIGNAL) != 1) fail("sendmsg");
}

static int receive_descriptor(int from) {
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {0, 0, &part, 1, control, sizeof control, 0};
    int descriptor;
    if (recvmsg(from, &message, 0) != 1 || !CMSG_FIRSTHDR(&message)) fail("recvmsg");
    memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    return descriptor;
}

static int content(char *into, int size) {
    int in = open(file, O_RDONLY), length = in < 0 ? 0 : read(in, into, size);
    if (in >= 0) close(in);
    return length;
}

static void answer(int client) {
    char text[256];
    int length = content(text, sizeof text);
    if (is("fd")) {
        int in = open(file, O_RDONLY);
        send_descriptor(client, in);
        close(in);
    } else if (is("memfd")) {
        int memory = memfd_create("content", 0);
        if (write(memory, text, length) != length) fail("write");
        send_descriptor(client, memory);
        close(memory);
    } else if (send(client, text, length, MSG_NOSIGNAL) != length) {
        perror("send");
    }
    close(client);
}

static void ready(void) {
    put("../outside/pid", getpid());
    if (daemon(1, 0) != 0) fail("daemon");
    put("../outside/pid", getpid());
    alarm(60);
}

static int serve(void) {
    if (is("hold")) {
        int in = open(file, O_RDONLY);
        char *memory = mmap(0, 4096, PROT_READ, MAP_SHARED, in, 0);
        put("../outside/address", (unsigned long)memory);
        put("../outside/number", in);
        ready();
        for (;;) pause();
    }
    if (is("pipe")) {
        mkfifo("../outside/pipe", 0600);
        signal(SIGPIPE, SIG_IGN);
        ready();
        for (;;) {
            char text[256];
            int out = open("../outside/pipe", O_WRONLY), length = content(text, sizeof text);
            if (out < 0 || write(out, text, length) < 0) return 1;
            close(out);
            usleep(20000);
        }
    }
    struct sockaddr_storage address;
    socklen_t length;
    int server = create(&address, &length);
    if (server < 0 || bind(server, (void *)&address, length) != 0) fail("bind");
    if (!is("udp") && listen(server, 8) != 0) fail("listen");
    if (is("tcp") || is("udp")) {
        getsockname(server, (void *)&address, &length);
        put("../outside/port", ntohs(((struct sockaddr_in *)&address)->sin_port));
    }
    ready();
    while (is("udp")) {
        char text[256];
        length = sizeof address;
        if (recvfrom(server, text, sizeof text, 0, (void *)&address, &length) < 0) return 1;
        int size = content(text, sizeof text);
        sendto(server, text, size, 0, (void *)&address, length);
    }
    for (;;) {
        int client = accept(server, 0, 0);
        if (client < 0) return 1;
        answer(client);
    }
}

static int print(int in) {
    char text[256];
    int length = pread(in, text, sizeof text, 0);
    return length < 0 || write(1, text, length) != length;
}

static int ask(void) {
    char text[256];
    if (is("getfd")) {
        int process = syscall(SYS_pidfd_open, get("../outside/pid"), 0);
        return print(syscall(SYS_pidfd_getfd, process, get("../outside/number"), 0));
    }
    if (is("procfd") || is("root")) {
        unsigned long process = get("../outside/pid");
        if (is("root")) snprintf(text, sizeof text, "/proc/%lu/cwd/%s", process, file);
        else snprintf(text, sizeof text, "/proc/%lu/fd/%lu", process, get("../outside/number"));
        return print(open(text, O_RDONLY));
    }
    if (is("memory")) {
        struct iovec here = {text, 1}, there = {(void *)get("../outside/address"), 1};
        if (syscall(SYS_process_vm_readv, get("../outside/pid"), &here, 1, &there, 1, 0) != 1) fail("memory");
        return write(1, text, 1) != 1;
    }
    struct sockaddr_storage address;
    socklen_t length;
    int client = create(&address, &length), count;
    if (is("tcp") || is("udp")) ((struct sockaddr_in *)&address)->sin_port = htons(get("../outside/port"));
    if (is("udp")) {
        sendto(client, "?", 1, 0, (void *)&address, length);
    } else if (connect(client, (void *)&address, length) != 0) {
        fail("connect");
    }
    if (is("fd") || is("memfd")) return print(receive_descriptor(client));
    count = recv(client, text, sizeof text, 0);
    return count < 0 || write(1, text, count) != count;
}

int main(int count, char **words) {
    if (count == 2 && !strcmp(words[1], "stop")) return kill(get("../outside/pid"), SIGKILL) != 0;
    if (count != 4) return 2;
    kind = words[2];
    file = words[3];
    return !strcmp(words[1], "serve") ? serve() : ask();
}
