/* Creates a socket in the file system. */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
int main(void) {
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    strcpy(name.sun_path, "done");
    return bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&name, sizeof name) != 0;
}
