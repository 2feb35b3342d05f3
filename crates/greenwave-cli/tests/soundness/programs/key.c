/* Adds, reads or removes a key of the user's keyring. Where there are none, `read` prints 1. The name
   of the key derives from the inode of test.sh. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { USER_KEYRING = -4, LINK = 8, UNLINK = 9, SEARCH = 10, READ = 11 };
int main(int count, char **words) {
    struct stat about;
    char name[64], text[16] = "";
    if (count < 2 || stat("test.sh", &about) != 0) return 2;
    snprintf(name, sizeof name, "greenwave-probe-%lu", (unsigned long)about.st_ino);
    if (!strcmp(words[1], "add")) {
        syscall(SYS_add_key, "user", name, words[2], strlen(words[2]), USER_KEYRING);
        return 0;
    }
    long key = syscall(SYS_keyctl, SEARCH, USER_KEYRING, "user", name, 0);
    if (!strcmp(words[1], "remove")) return key > 0 && syscall(SYS_keyctl, UNLINK, key, USER_KEYRING) < 0;
    if (key < 0 || syscall(SYS_keyctl, READ, key, text, sizeof text) < 0) strcpy(text, "1");
    puts(text);
    return 0;
}
