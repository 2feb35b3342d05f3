/* Makes a call that fails without changing anything. The first argument names the call, the second
   its file. Exits with 1 if the call succeeds. */
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Gives up the capabilities by which the superuser ignores the modes of files. */
static void obey_modes(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2];
    memset(none, 0, sizeof none);
    syscall(SYS_capset, &header, none);
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    const char *call = arguments[1], *file = arguments[2];
    int result = 0;
    obey_modes();
    if (!strcmp(call, "open")) result = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (!strcmp(call, "creat")) result = creat(file, 0600);
    if (!strcmp(call, "exclusive")) result = open(file, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (!strcmp(call, "truncate")) result = truncate(file, 0);
    if (!strcmp(call, "unlink")) result = unlink(file);
    if (!strcmp(call, "rmdir")) result = rmdir(file);
    if (!strcmp(call, "rename") && !mkdir("../outside/new", 0700)) result = rename("../outside/new", file);
    if (!strcmp(call, "link")) result = link("test.sh", file);
    if (!strcmp(call, "symlink")) result = symlink("test.sh", file);
    if (!strcmp(call, "mkdir")) result = mkdir(file, 0700);
    rmdir("../outside/new");
    return result == -1 ? 0 : 1;
}
