/* What surrounds a program, as a test wants it: the wall clock and the names of hosts.
 *
 * Loaded before libc (LD_PRELOAD), into the daemon alone. The directory WALVEC_SURROUNDINGS tells what is so now; tests
 * change it while the daemon runs.
 *
 *   clock      a number of seconds: the wall clock is so far ahead of the machine's
 *   nameless   exists: no host has an address ("temporary failure in name resolution")
 *
 * Any name under .test is 127.0.0.1 otherwise. Monotonic clocks and numeric addresses are left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int in_directory(char *path, size_t size, const char *name) {
    const char *directory = getenv("WALVEC_SURROUNDINGS");
    return directory != NULL && snprintf(path, size, "%s/%s", directory, name) < (int)size;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    char path[4096];
    if (result == 0 && clock == CLOCK_REALTIME && in_directory(path, sizeof path, "clock")) {
        FILE *file = fopen(path, "r");
        long ahead = 0;
        if (file != NULL) {
            if (fscanf(file, "%ld", &ahead) == 1) now->tv_sec += ahead;
            fclose(file);
        }
    }
    return result;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (real == NULL)
        real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    size_t length = node == NULL ? 0 : strlen(node);
    if (length > 5 && strcmp(node + length - 5, ".test") == 0) {
        char path[4096];
        if (in_directory(path, sizeof path, "nameless") && access(path, F_OK) == 0) return EAI_AGAIN;
        node = "127.0.0.1";
    }
    return real(node, service, hints, found);
}
