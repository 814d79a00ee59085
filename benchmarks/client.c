/* A load client that costs little: epoll, keep-alive connections, one thread. Prints one JSON object.
 *
 *   client --host 127.0.0.1 --port 8000 --path /predict --type image/jpeg --body FILE [--body FILE ...] [--header "Name: value"]
 *     --mode closed --clients 64 --seconds 8 --warm 1.5        every client sends its next request when it has its answer
 *     --mode open --phase RATE:SECONDS [--phase ...]           Poisson arrivals from --seed, whatever comes back
 *     --patience-ms 500     a client hangs up after this long and, in a closed loop, comes again at once
 *     --pause-ms 50         closed loop: pause after any answer but 200
 *     --objective-ms 100    an answer 200 is useful within this; default: within the patience
 *     --connections 2048    open loop: the most connections at once; what finds none waits, and its time runs
 *
 * A latency runs from the moment a request was meant to be sent (no coordinated omission), connecting and waiting for a
 * connection included. Answers are counted in the phase in which their request was meant to be sent; in a closed loop, when
 * they arrive between the end of the warm-up and the end of the run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PHASES = 64, MAX_BODIES = 64, MAX_CODE = 600, EVENTS = 512 };
static const double RECONNECT_S = 0.05, UNANSWERED_S = 10.0;

typedef struct {
    double *at;
    size_t count, room;
} Samples;

typedef struct {
    double rate, seconds, begin_s, end_s;
    long intended, useful, hung_up, lost, unsent, unanswered, codes[MAX_CODE];
    Samples ok, refused;
} Phase;

typedef enum { CLOSED, CONNECTING, IDLE, SENDING, WAITING, PAUSED } Stage;

typedef struct {
    int fd;
    Stage stage;
    unsigned serial; /* of its request: timers of an earlier one are ignored */
    double meant_s;
    int phase, has_request;
    size_t sent, length, room;
    int body;
    char *buffer;
} Connection;

typedef struct {
    int connection;
    unsigned serial;
    double at_s;
} Due;

typedef struct {
    Due *items;
    size_t head, count, room;
} Timers; /* constant delays, so first in is first due */

typedef struct {
    double meant_s;
    int phase;
} Arrival;

static struct sockaddr_in address;
static Connection *connections;
static int connection_count, *idle, idle_count, open_mode, epoll_fd, timer_fd;
static char *requests[MAX_BODIES];
static size_t request_bytes[MAX_BODIES];
static int bodies, next_body;
static Phase phases[MAX_PHASES];
static int phase_count;
static double patience_s, pause_s, objective_s, start_s, end_s, warm_s;
static Timers hang_ups, resumes, reconnects;
static Arrival *waiting;
static size_t waiting_head, waiting_count, waiting_room;
static long connects, refused_connects, outstanding;
static Samples lateness;
static uint64_t random_state;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static void *grown(void *old, size_t bytes) {
    void *made = realloc(old, bytes);
    if (!made) fail("out of memory");
    return made;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void add(Samples *samples, double value) {
    if (samples->count == samples->room) {
        samples->room = samples->room ? samples->room * 2 : 1024;
        samples->at = grown(samples->at, samples->room * sizeof *samples->at);
    }
    samples->at[samples->count++] = value;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void after(Timers *timers, int connection, double at_s) {
    if (timers->head + timers->count == timers->room) {
        if (timers->head > timers->count) {
            memmove(timers->items, timers->items + timers->head, timers->count * sizeof *timers->items);
            timers->head = 0;
        } else {
            timers->room = timers->room ? timers->room * 2 : 1024;
            timers->items = grown(timers->items, timers->room * sizeof *timers->items);
        }
    }
    timers->items[timers->head + timers->count++] = (Due){connection, connections[connection].serial, at_s};
}

static const Due *first(const Timers *timers) { return timers->count ? &timers->items[timers->head] : NULL; }

static void drop_first(Timers *timers) {
    timers->head++;
    timers->count--;
}

static double exponential(double rate) { /* xorshift64*, the same arrivals everywhere */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    double unit = (double)((random_state * 2685821657736338717ULL) >> 11) / 9007199254740992.0;
    return -log(1.0 - unit) / rate;
}

static Phase *phase_of(const Connection *connection) { return &phases[connection->phase]; }

/* A closed loop counts what happens after its warm-up; an open one everything that was meant to be sent in a phase. */
static int counted(double at_s) { return open_mode || (at_s >= start_s && at_s <= end_s); }

static void watch(int index, uint32_t events) {
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)index};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, connections[index].fd, &event)) fail("epoll: %s", strerror(errno));
}

static void hang_up(int index) {
    Connection *connection = &connections[index];
    if (connection->fd >= 0) close(connection->fd);
    connection->fd = -1;
    connection->stage = CLOSED;
    connection->serial++;
    connection->length = 0;
}

static void begin(int index);

static void write_request(int index) {
    Connection *connection = &connections[index];
    while (connection->sent < request_bytes[connection->body]) {
        ssize_t wrote = send(connection->fd, requests[connection->body] + connection->sent,
                             request_bytes[connection->body] - connection->sent, MSG_NOSIGNAL);
        if (wrote < 0) {
            if (errno == EAGAIN) watch(index, EPOLLIN | EPOLLOUT);
            return; /* any other error shows as EPOLLERR or a read of nothing; an early answer may still be read */
        }
        connection->sent += (size_t)wrote;
    }
    if (connection->stage == SENDING) {
        connection->stage = WAITING;
        watch(index, EPOLLIN);
    }
}

static void send_request(int index) {
    Connection *connection = &connections[index];
    connection->stage = SENDING;
    connection->sent = connection->length = 0;
    connection->body = next_body;
    next_body = (next_body + 1) % bodies;
    if (open_mode) add(&lateness, now_s() - connection->meant_s);
    write_request(index);
}

static void open_connection(int index) {
    Connection *connection = &connections[index];
    int one = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connection->fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connection->stage = CONNECTING;
    connects++;
    int failed = connect(connection->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS;
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = (uint32_t)index};
    if (!failed && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, connection->fd, &event)) fail("epoll: %s", strerror(errno));
    if (failed) {
        refused_connects++;
        close(connection->fd);
        connection->fd = -1;
        connection->stage = CLOSED;
        after(&reconnects, index, now_s() + RECONNECT_S);
    }
}

/* A request in hand goes out, over the connection it has or a new one. */
static void begin(int index) {
    Connection *connection = &connections[index];
    connection->has_request = 1;
    outstanding++;
    connection->serial++;
    if (patience_s > 0) after(&hang_ups, index, connection->meant_s + patience_s);
    if (connection->fd >= 0) send_request(index);
    else open_connection(index);
}

static void next_request(int index) {
    Connection *connection = &connections[index];
    double now = now_s();
    if (!open_mode) {
        if (now >= end_s) {
            hang_up(index);
            return;
        }
        connection->meant_s = now;
        if (now >= start_s) phases[0].intended++;
        begin(index);
        return;
    }
    while (waiting_count) {
        Arrival arrival = waiting[waiting_head++];
        waiting_count--;
        if (patience_s > 0 && now - arrival.meant_s >= patience_s) {
            phases[arrival.phase].unsent++;
            continue;
        }
        connection->meant_s = arrival.meant_s;
        connection->phase = arrival.phase;
        begin(index);
        return;
    }
    if (connection->fd >= 0) connection->stage = IDLE;
    idle[idle_count++] = index;
}

static void request_over(Connection *connection) {
    connection->has_request = 0;
    outstanding--;
}

static void lost(int index) {
    Connection *connection = &connections[index];
    int had = connection->has_request;
    if (had) {
        if (connection->stage == CONNECTING) refused_connects++;
        else if (counted(now_s())) phase_of(connection)->lost++;
        if (connection->stage == CONNECTING) { /* nothing was sent: try again, its time runs */
            hang_up(index);
            after(&reconnects, index, now_s() + RECONNECT_S);
            if (patience_s > 0) after(&hang_ups, index, connection->meant_s + patience_s);
            return;
        }
        request_over(connection);
    }
    hang_up(index);
    if (had) {
        if (open_mode) next_request(index);
        else after(&resumes, index, now_s() + pause_s);
    }
}

static void answered(int index, int code, int closes) {
    Connection *connection = &connections[index];
    Phase *phase = phase_of(connection);
    double now = now_s(), latency_s = now - connection->meant_s;
    if (counted(now)) {
        phase->codes[code > 0 && code < MAX_CODE ? code : 0]++;
        if (code == 200) {
            add(&phase->ok, latency_s);
            if (objective_s <= 0 || latency_s <= objective_s) phase->useful++;
        } else {
            add(&phase->refused, latency_s);
        }
    }
    request_over(connection);
    connection->serial++;
    connection->length = 0;
    if (closes || connection->stage == SENDING) hang_up(index);
    if (!open_mode && code != 200 && pause_s > 0) {
        if (connection->fd >= 0) connection->stage = PAUSED;
        after(&resumes, index, now + pause_s);
    } else {
        next_request(index);
    }
}

/* The value of a header in the head [text, end), or NULL. */
static const char *header(const char *text, const char *end, const char *name) {
    size_t length = strlen(name);
    for (const char *line = text; line && line < end; line = memchr(line, '\n', (size_t)(end - line))) {
        line += *line == '\n';
        if ((size_t)(end - line) > length && !strncasecmp(line, name, length) && line[length] == ':') {
            line += length + 1;
            while (*line == ' ') line++;
            return line;
        }
    }
    return NULL;
}

/* 1: a whole answer is in the buffer; 0: not yet. */
static int complete(const Connection *connection, int *code, int *closes) {
    const char *text = connection->buffer, *head_end = memmem(text, connection->length, "\r\n\r\n", 4);
    if (!head_end || connection->length < 12) return 0;
    const char *body = head_end + 4, *value;
    size_t have = connection->length - (size_t)(body - text);
    *code = atoi(text + 9);
    value = header(text, head_end, "connection");
    *closes = value && !strncasecmp(value, "close", 5);
    value = header(text, head_end, "transfer-encoding");
    if (value && !strncasecmp(value, "chunked", 7))
        return have >= 5 && !memcmp(text + connection->length - 5, "0\r\n\r\n", 5);
    value = header(text, head_end, "content-length");
    return have >= (value ? strtoul(value, NULL, 10) : 0);
}

static void readable(int index) {
    Connection *connection = &connections[index];
    for (;;) {
        if (connection->room - connection->length < 8192) {
            connection->room = connection->room ? connection->room * 2 : 16384;
            connection->buffer = grown(connection->buffer, connection->room);
        }
        ssize_t got = recv(connection->fd, connection->buffer + connection->length,
                           connection->room - connection->length - 1, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            if (connection->stage == IDLE) { /* closed while it had nothing to do: the next request opens it again */
                hang_up(index);
                return;
            }
            lost(index);
            return;
        }
        connection->length += (size_t)got;
        connection->buffer[connection->length] = 0;
        int code, closes;
        if (connection->has_request && complete(connection, &code, &closes)) {
            answered(index, code, closes);
            return;
        }
    }
}

static void handle(int index, uint32_t events) {
    Connection *connection = &connections[index];
    if (connection->fd < 0) return;
    if (connection->stage == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            lost(index);
            return;
        }
        watch(index, EPOLLIN);
        send_request(index);
        return;
    }
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) readable(index);
    if ((events & EPOLLOUT) && connections[index].stage == SENDING) write_request(index);
}

static void give_up(int index) {
    Connection *connection = &connections[index];
    if (counted(now_s())) phase_of(connection)->hung_up++;
    request_over(connection);
    hang_up(index);
    next_request(index);
}

static void run_timers(double now) {
    const Due *due;
    while ((due = first(&hang_ups)) && due->at_s <= now) {
        Due it = *due;
        drop_first(&hang_ups);
        if (connections[it.connection].serial == it.serial && connections[it.connection].has_request) give_up(it.connection);
    }
    while ((due = first(&resumes)) && due->at_s <= now) {
        Due it = *due;
        drop_first(&resumes);
        if (!connections[it.connection].has_request) next_request(it.connection);
    }
    while ((due = first(&reconnects)) && due->at_s <= now) {
        Due it = *due;
        drop_first(&reconnects);
        Connection *connection = &connections[it.connection];
        if (connection->serial != it.serial || connection->fd >= 0 || !connection->has_request) continue;
        if (!open_mode && now >= end_s) request_over(connection);
        else open_connection(it.connection);
    }
}

static void arrive(double meant_s, int phase) {
    phases[phase].intended++;
    if (idle_count) {
        int index = idle[--idle_count];
        connections[index].meant_s = meant_s;
        connections[index].phase = phase;
        begin(index);
        return;
    }
    if (waiting_head + waiting_count == waiting_room) {
        waiting_room = waiting_room ? waiting_room * 2 : 4096;
        waiting = grown(waiting, waiting_room * sizeof *waiting);
    }
    waiting[waiting_head + waiting_count++] = (Arrival){meant_s, phase};
}

static void sleep_until(double at_s) {
    long nanoseconds = (long)((at_s - floor(at_s)) * 1e9);
    struct itimerspec when = {.it_value = {(time_t)at_s, nanoseconds < 999999999 ? nanoseconds + 1 : nanoseconds}};
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void run(void) {
    struct epoll_event events[EVENTS];
    int phase = 0;
    double next_s = open_mode ? phases[0].begin_s + exponential(phases[0].rate) : 0, last_s = end_s + UNANSWERED_S;
    if (!open_mode)
        for (int index = 0; index < connection_count; index++) next_request(index);
    for (;;) {
        double now = now_s();
        while (open_mode && phase < phase_count && next_s <= now) {
            if (next_s >= phases[phase].end_s) { /* the next phase begins where this one ends */
                phase++;
                if (phase < phase_count) next_s = phases[phase].begin_s + exponential(phases[phase].rate);
                continue;
            }
            arrive(next_s, phase);
            next_s += exponential(phases[phase].rate);
        }
        run_timers(now);
        if (now >= last_s || (!open_mode && now >= end_s)) return;
        if (open_mode && phase == phase_count && !outstanding && !waiting_count) return;
        double until_s = open_mode ? last_s : end_s;
        if (open_mode && phase < phase_count && next_s < until_s) until_s = next_s;
        if (first(&hang_ups) && first(&hang_ups)->at_s < until_s) until_s = first(&hang_ups)->at_s;
        if (first(&resumes) && first(&resumes)->at_s < until_s) until_s = first(&resumes)->at_s;
        if (first(&reconnects) && first(&reconnects)->at_s < until_s) until_s = first(&reconnects)->at_s;
        sleep_until(until_s);
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int at = 0; at < count; at++) {
            uint64_t expirations;
            if (events[at].data.u32 != UINT32_MAX) handle((int)events[at].data.u32, events[at].events);
            else if (read(timer_fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN) fail("timer: %s", strerror(errno));
        }
    }
}

static void print_percentiles(const char *prefix, Samples *samples) {
    static const struct {
        const char *name;
        double share;
    } wanted[] = {{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}, {"max", 1.0}};
    qsort(samples->at, samples->count, sizeof *samples->at, ascending);
    for (size_t at = 0; at < sizeof wanted / sizeof *wanted; at++) {
        size_t index = (size_t)(wanted[at].share * (double)samples->count);
        if (index >= samples->count) index = samples->count - 1;
        printf(", \"%s%s_ms\": ", prefix, wanted[at].name);
        if (samples->count) printf("%.3f", samples->at[index] * 1e3);
        else printf("null");
    }
}

static void report(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
    printf("{\"client\": \"compiled\", \"client_cpu_s\": %.3f, \"connects\": %ld, \"refused_connects\": %ld", cpu_s, connects,
           refused_connects);
    print_percentiles("late_", &lateness);
    printf(", \"phases\": [");
    for (int at = 0; at < phase_count; at++) {
        Phase *phase = &phases[at];
        double seconds = phase->seconds;
        printf("%s{\"seconds\": %.3f, \"intended\": %ld, \"ok_per_s\": %.3f, \"useful\": %ld, \"useful_per_s\": %.3f", at ? ", " : "",
               seconds, phase->intended, (double)phase->ok.count / seconds, phase->useful, (double)phase->useful / seconds);
        printf(", \"hung_up\": %ld, \"lost\": %ld, \"unsent\": %ld, \"unanswered\": %ld", phase->hung_up, phase->lost,
               phase->unsent, phase->unanswered);
        print_percentiles("", &phase->ok);
        print_percentiles("refused_", &phase->refused);
        printf(", \"codes\": {");
        const char *comma = "";
        for (int code = 0; code < MAX_CODE; code++)
            if (phase->codes[code]) {
                printf("%s\"%d\": %ld", comma, code, phase->codes[code]);
                comma = ", ";
            }
        printf("}}");
    }
    printf("]}\n");
}

static char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("%s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *text = grown(NULL, *bytes + 1);
    if (fread(text, 1, *bytes, file) != *bytes) fail("%s: cannot be read", path);
    fclose(file);
    return text;
}

int main(int count, char **arguments) {
    const char *host = "127.0.0.1", *path = "/predict", *type = "image/jpeg", *files[MAX_BODIES];
    char extra[4096] = "";
    int port = 0, clients = 0;
    double seconds = 5;
    uint64_t seed = 7;
    for (int at = 1; at + 1 < count; at += 2) {
        const char *name = arguments[at], *value = arguments[at + 1];
        if (!strcmp(name, "--host")) host = value;
        else if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--path")) path = value;
        else if (!strcmp(name, "--type")) type = value;
        else if (!strcmp(name, "--body") && bodies < MAX_BODIES) files[bodies++] = value;
        else if (!strcmp(name, "--header")) snprintf(extra + strlen(extra), sizeof extra - strlen(extra), "%s\r\n", value);
        else if (!strcmp(name, "--mode")) open_mode = !strcmp(value, "open");
        else if (!strcmp(name, "--clients") || !strcmp(name, "--connections")) clients = atoi(value);
        else if (!strcmp(name, "--seconds")) seconds = atof(value);
        else if (!strcmp(name, "--warm")) warm_s = atof(value);
        else if (!strcmp(name, "--patience-ms")) patience_s = atof(value) / 1e3;
        else if (!strcmp(name, "--pause-ms")) pause_s = atof(value) / 1e3;
        else if (!strcmp(name, "--objective-ms")) objective_s = atof(value) / 1e3;
        else if (!strcmp(name, "--seed")) seed = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--phase") && phase_count < MAX_PHASES &&
                 sscanf(value, "%lf:%lf", &phases[phase_count].rate, &phases[phase_count].seconds) == 2)
            phase_count++;
        else fail("unknown: %s %s", name, value);
    }
    if (!clients) clients = open_mode ? 2048 : 1;
    if (!port || !bodies || clients < 1 || (open_mode && !phase_count)) fail("--port, --body and, in an open loop, --phase are needed");
    if (!open_mode) {
        phase_count = 1;
        phases[0].seconds = seconds;
    }
    if (objective_s <= 0) objective_s = patience_s;
    random_state = seed * 0x9E3779B97F4A7C15ULL + 1;
    for (int at = 0; at < 8; at++) exponential(1.0);
    for (int at = 0; at < bodies; at++) {
        size_t bytes;
        char *body = read_file(files[at], &bytes), *request = grown(NULL, bytes + 8192);
        int head = snprintf(request, 8192, "POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n",
                            path, host, port, type, bytes, extra);
        memcpy(request + head, body, bytes);
        requests[at] = request;
        request_bytes[at] = (size_t)head + bytes;
        free(body);
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("--host: an IPv4 address");
    connection_count = clients;
    connections = grown(NULL, (size_t)clients * sizeof *connections);
    idle = grown(NULL, (size_t)clients * sizeof *idle);
    memset(connections, 0, (size_t)clients * sizeof *connections);
    for (int index = 0; index < clients; index++) connections[index].fd = -1;
    if (open_mode)
        for (int index = clients - 1; index >= 0; index--) idle[idle_count++] = index;
    epoll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    if (epoll_fd < 0 || timer_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event)) fail("epoll: %s", strerror(errno));
    start_s = now_s() + warm_s;
    end_s = start_s;
    for (int at = 0; at < phase_count; at++) {
        phases[at].begin_s = end_s;
        end_s = phases[at].end_s = end_s + phases[at].seconds;
    }
    run();
    for (int index = 0; open_mode && index < clients; index++)
        if (connections[index].has_request) phase_of(&connections[index])->unanswered++;
    for (size_t at = 0; at < waiting_count; at++) phases[waiting[waiting_head + at].phase].unanswered++;
    report();
    return 0;
}
