#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
struct how { uint64_t flags, mode, resolve; };
int main(void) {
    struct how how = {O_CREAT | O_WRONLY, 04755, 0};
    close(open("plain", O_CREAT | O_WRONLY, 0755));
    int fd = open("plain", O_WRONLY);
    printf("chmod %ld\n", syscall(SYS_chmod, "plain", 04755));
    printf("fchmod %ld\n", syscall(SYS_fchmod, fd, 02755));
    printf("fchmodat %ld\n", syscall(SYS_fchmodat, AT_FDCWD, "plain", 06755));
    printf("fchmodat2 %ld\n", syscall(452, AT_FDCWD, "plain", 04755, 0));
    printf("open %ld\n", syscall(SYS_open, "opened", O_CREAT | O_WRONLY, 04755));
    printf("openat %ld\n", syscall(SYS_openat, AT_FDCWD, "openedat", O_CREAT | O_WRONLY, 04755));
    printf("openat2 %ld\n", syscall(437, AT_FDCWD, "opened2", &how, sizeof how));
    printf("tmpfile %ld\n", syscall(SYS_openat, AT_FDCWD, ".", O_TMPFILE | O_WRONLY, 04755));
    printf("creat %ld\n", syscall(SYS_creat, "created", 04755));
    printf("mknod %ld\n", syscall(SYS_mknod, "node", S_IFREG | 04755, 0));
    printf("mknodat %ld\n", syscall(SYS_mknodat, AT_FDCWD, "nodeat", S_IFREG | 04755, 0));
    printf("io_uring %ld\n", syscall(425, 1, &how));
    printf("ptrace %ld\n", syscall(SYS_ptrace, 0, 0, 0, 0));
    printf("mount %ld %d\n", syscall(SYS_mount, "a", ".", "tmpfs", 0, 0), errno);
    fflush(stdout);
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(15), "b"("plain"), "c"(04755));
    printf("chmod32 %ld\n", result);
#endif
    return 0;
}
