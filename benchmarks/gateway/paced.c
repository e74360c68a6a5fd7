/* The loop of paced.py, which says what it does and why: requests begin by the clock, systems take
 * turns. It is in C since it shares a core, and its caches, with what it measures.
 *
 * paced INTERVAL_NS REQUESTS_A_SLICE SLICE_NS LINGER_NS CONNECTIONS ORDER HOST {PORT PATH}...
 *
 * ORDER names the target of each slice by a digit, from 0. Each answer becomes a line on stdout:
 * the target, its latency in nanoseconds, and 1 if its status was 200. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS 1000000000LL
#define ANSWER_BYTES 65536
#define MAX_TARGETS 10
#define ARGUMENTS 9
#define OK_LINE "HTTP/1.1 200 "

struct target;

struct connection {
    int fd;
    struct target *target;
    int64_t due_ns;
    int asked;
    size_t received;
    char answer[ANSWER_BYTES + 1];
};

struct target {
    char *request;
    size_t request_bytes;
    struct connection *connections;
    struct connection **free; /* a ring */
    long first_free, free_count;
};

struct result {
    int64_t latency_ns;
    short target, ok;
};

static struct target targets[MAX_TARGETS];
static struct result *results;
static long result_count, connection_count;

static void fail(const char *format, ...)
{
    va_list rest;
    va_start(rest, format);
    vfprintf(stderr, format, rest);
    va_end(rest);
    fputc('\n', stderr);
    exit(1);
}

static void check(int failed, const char *what)
{
    if (failed)
        fail("%s: %s", what, strerror(errno));
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * NANOSECONDS + now.tv_nsec;
}

static void *room(size_t bytes)
{
    void *made = calloc(1, bytes);
    check(made == NULL, "memory");
    return made;
}

static void open_target(struct target *target, int epoll, const char *host, int port, const char *path)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(asprintf(&target->request, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\n\r\n",
                   path, host) < 0, "memory");
    target->request_bytes = strlen(target->request);
    target->connections = room(connection_count * sizeof *target->connections);
    target->free = room(connection_count * sizeof *target->free);
    target->free_count = connection_count;
    for (long i = 0; i < connection_count; i++) {
        struct connection *made = target->free[i] = &target->connections[i];
        struct epoll_event readable = {.events = EPOLLIN, .data.ptr = made};
        made->target = target;
        made->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(made->fd < 0, "socket");
        check(connect(made->fd, (struct sockaddr *)&at, sizeof at), "connect");
        check(setsockopt(made->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
        check(setsockopt(made->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on), "SO_TIMESTAMPNS");
        check(epoll_ctl(epoll, EPOLL_CTL_ADD, made->fd, &readable), "epoll_ctl");
    }
}

/* Whether the answer is there to its end. */
static int whole(struct connection *connection)
{
    char *answer = connection->answer, *end;
    size_t body;

    answer[connection->received] = 0;
    if ((end = strstr(answer, "\r\n\r\n")) == NULL)
        return 0;
    end += 2;
    body = connection->received - (end + 2 - answer);
    for (char *line = answer; line < end; line = strstr(line, "\r\n") + 2)
        if (strncasecmp(line, "content-length:", 15) == 0) {
            size_t length = strtoul(line + 15, NULL, 10);
            if (body > length)
                fail("bytes behind an answer");
            return body == length;
        }
    return body >= 5 && memcmp(answer + connection->received - 5, "0\r\n\r\n", 5) == 0;
}

/* When the kernel got what it gave with this, on the wall clock. */
static int64_t arrived_ns(struct msghdr *message)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each))
        if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec at;
            memcpy(&at, CMSG_DATA(each), sizeof at);
            return at.tv_sec * NANOSECONDS + at.tv_nsec;
        }
    fail("the kernel does not tell when an answer came");
    return 0;
}

static void receive(struct connection *connection, struct target *whose_turn)
{
    struct target *target = connection->target;
    char ancillary[64];
    struct iovec where = {connection->answer + connection->received,
                          ANSWER_BYTES - connection->received};
    struct msghdr message = {.msg_iov = &where, .msg_iovlen = 1, .msg_control = ancillary,
                             .msg_controllen = sizeof ancillary};
    ssize_t more = recvmsg(connection->fd, &message, MSG_DONTWAIT);

    if (more <= 0 || target != whose_turn)
        fail("a connection was closed");
    if (!connection->asked)
        fail("bytes that nobody asked for");
    connection->received += more;
    if (!whole(connection)) {
        if (connection->received >= ANSWER_BYTES)
            fail("an answer is larger than %d bytes", ANSWER_BYTES);
        return;
    }
    results[result_count++] = (struct result){
        arrived_ns(&message) - connection->due_ns, target - targets,
        strncmp(connection->answer, OK_LINE, sizeof OK_LINE - 1) == 0};
    connection->received = connection->asked = 0;
    target->free[(target->first_free + target->free_count++) % connection_count] = connection;
}

static void ask(struct target *target, int64_t due_ns)
{
    struct connection *connection = target->free[target->first_free];

    target->first_free = (target->first_free + 1) % connection_count;
    target->free_count--;
    connection->due_ns = due_ns;
    connection->asked = 1;
    if (send(connection->fd, target->request, target->request_bytes, MSG_NOSIGNAL) !=
        (ssize_t)target->request_bytes)
        fail("a connection was closed");
}

/* The load on one target for one slice, and all its answers. */
static void slice(struct target *target, int epoll, int timer, int64_t interval_ns, long requests,
                  int64_t limit_ns)
{
    struct timespec every = {interval_ns / NANOSECONDS, interval_ns % NANOSECONDS};
    struct itimerspec ticking = {every, every};
    struct epoll_event events[64];
    int64_t began = now_ns();
    long ticked = 0, asked = 0;

    check(timerfd_settime(timer, 0, &ticking, NULL), "timerfd_settime");
    while (asked < requests || target->free_count < connection_count) {
        uint64_t ticks;
        int found;
        if (now_ns() > began + limit_ns)
            fail("%ld answers are missing", requests - asked + connection_count - target->free_count);
        check(read(timer, &ticks, sizeof ticks) != sizeof ticks, "timer");
        ticked += ticks;
        while ((found = epoll_wait(epoll, events, 64, 0)) > 0) {
            for (int i = 0; i < found; i++)
                receive(events[i].data.ptr, target);
            if (found < 64)
                break;
        }
        check(found < 0, "epoll_wait");
        for (; asked < ticked && asked < requests && target->free_count; asked++)
            ask(target, began + (asked + 1) * interval_ns);
    }
}

int main(int argc, char **argv)
{
    /* Whoever started this may be killed. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc < ARGUMENTS + 2 || (argc - ARGUMENTS) % 2 || argc > ARGUMENTS + 2 * MAX_TARGETS)
        fail("this is started by paced.py");
    /* ... or was before this could say so. */
    if (getppid() != atoi(argv[8]))
        fail("whoever started this has ended");
    int64_t interval_ns = atoll(argv[1]), limit_ns = atoll(argv[3]) + atoll(argv[4]);
    long requests = atol(argv[2]);
    const char *order = argv[6];
    int epoll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

    check(epoll < 0 || timer < 0, "epoll_create1, timerfd_create");
    connection_count = atol(argv[5]);
    results = room(strlen(order) * requests * sizeof *results);
    for (int i = ARGUMENTS; i < argc; i += 2)
        open_target(&targets[(i - ARGUMENTS) / 2], epoll, argv[7], atoi(argv[i]), argv[i + 1]);
    for (const char *turn = order; *turn; turn++)
        slice(&targets[*turn - '0'], epoll, timer, interval_ns, requests, limit_ns);
    for (long i = 0; i < result_count; i++)
        printf("%d %lld %d\n", results[i].target, (long long)results[i].latency_ns, results[i].ok);
    return 0;
}
