// A library that attacks whoever loads it. It takes its targets from the file `targets` in the working directory, one a line, and
// writes to the file `report` what it was allowed to do.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static FILE *report;
static char key[4096], outside[4096], supervisor_memory[64], unix_path[4096];
static int port;

static void said(const char *attack, long result) {
    fprintf(report, "%s %s\n", attack, result < 0 ? "refused" : "allowed");
    fflush(report);
}

static void line(FILE *from, char *to, int size) {
    if (fgets(to, size, from) == NULL) to[0] = 0;
    to[strcspn(to, "\n")] = 0;
}

static void *nothing(void *value) { return value; }

static void files(void) {
    said("read-key", open(key, O_RDONLY));
    said("link-key", link(key, "stolen"));
    said("rename-key", rename(key, "moved"));
    said("truncate-key", truncate(key, 0));
    said("remove-key", unlink(key));
    said("write-outside", open(outside, O_WRONLY | O_CREAT, 0600));
    said("write-own-image", open("../model.onnx", O_WRONLY));
    said("read-supervisor-memory", open(supervisor_memory, O_RDONLY));
}

static void rights(void) {
    said("chmod-key", chmod(key, 0666));
    said("chown-key", chown(key, getuid(), getgid()));
    said("own-namespace", unshare(CLONE_NEWUSER));
    said("chroot", chroot("."));
}

static void network(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int tcp = socket(AF_INET, SOCK_STREAM, 0);
    said("tcp-socket", tcp);
    said("tcp-connect", connect(tcp, (struct sockaddr *)&to, sizeof to));
    said("tcp6-socket", socket(AF_INET6, SOCK_STREAM, 0));
    said("udp-socket", socket(AF_INET, SOCK_DGRAM, 0));
    said("raw-socket", socket(AF_PACKET, SOCK_RAW, 0));
    said("netlink-socket", socket(AF_NETLINK, SOCK_RAW, 0));
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strncpy(at.sun_path, unix_path, sizeof at.sun_path - 1);
    int local = socket(AF_UNIX, SOCK_STREAM, 0);
    said("unix-socket", local);
    said("unix-connect", connect(local, (struct sockaddr *)&at, sizeof at));
    struct io_uring_params parameters = {0};
    said("io-uring", syscall(SYS_io_uring_setup, 4, &parameters));
}

static void processes(void) {
    pid_t supervisor = getppid();
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    struct rlimit limit = {256, 256};
    said("signal-supervisor", kill(supervisor, SIGCONT));
    said("signal-group", kill(0, SIGCONT));
    said("signal-thread", syscall(SYS_tgkill, supervisor, supervisor, SIGCONT));
    said("signal-everybody", kill(-1, SIGCONT));
    said("open-supervisor", syscall(SYS_pidfd_open, supervisor, 0));
    said("trace-supervisor", ptrace(PTRACE_SEIZE, supervisor, 0, 0));
    said("copy-supervisor", process_vm_readv(supervisor, &here, 1, &there, 1, 0));
    said("limit-supervisor", prlimit(supervisor, RLIMIT_NOFILE, &limit, NULL));
    pid_t child = fork();
    if (child == 0) _exit(0);
    said("fork", child);
    child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    said("clone-process", child);
}

static void what_it_may(void) {
    pthread_t thread;
    said("own-scratch", open("file", O_WRONLY | O_CREAT, 0600));
    said("own-image", open("../model.onnx", O_RDONLY));
    said("own-thread", pthread_create(&thread, NULL, nothing, NULL) == 0 ? 0 : -1);
    said("own-memory", mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
    said("own-signal", kill(getpid(), SIGCONT));
}

__attribute__((constructor)) static void attack(void) {
    char number[16];
    FILE *targets = fopen("targets", "r");
    report = fopen("report", "w");
    if (targets == NULL || report == NULL) return;
    line(targets, key, sizeof key);
    line(targets, outside, sizeof outside);
    line(targets, unix_path, sizeof unix_path);
    line(targets, number, sizeof number);
    sscanf(number, "%d", &port);
    snprintf(supervisor_memory, sizeof supervisor_memory, "/proc/%d/mem", getppid());
    rights();
    network();
    processes();
    what_it_may();
    files();
    // Last: allowed, it would end this program, and the next line would not be there.
    char *arguments[] = {"true", NULL};
    said("start-program", execv("/bin/true", arguments));
    said("end", 0);
}
