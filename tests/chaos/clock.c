/* A wall clock that is wrong: preloaded into a process, it adds the seconds in the file WRONG_CLOCK to every look at the time
 * of day. The file is mapped, so the clock jumps at once when somebody writes it. The monotonic clock stays as it is, as it
 * does on a machine whose clock is set. Waits until a time of day are translated back for the kernel. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead;

__attribute__((constructor)) static void open_clock(void) {
  static const int64_t right = 0;
  const char *path = getenv("WRONG_CLOCK");
  int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  ahead = map == MAP_FAILED ? &right : map;
}

static int64_t shift(void) { return ahead ? *ahead : 0; }

static int of_day(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

/* What the kernel must be told for a deadline that was computed from the wrong clock. Whether it is one shows in its size. */
static struct timespec as_kernel(const struct timespec *until) {
  struct timespec t = *until;
  if (t.tv_sec > 1000000000) t.tv_sec -= shift();
  return t;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = (int)syscall(SYS_clock_gettime, clock, now);
  if (!failed && of_day(clock)) now->tv_sec += shift();
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  now->tv_sec = t.tv_sec;
  now->tv_usec = t.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if (out) *out = t.tv_sec;
  return t.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict until) {
  struct timespec t = as_kernel(until);
  return REAL(pthread_cond_timedwait)(c, m, &t);
}

int pthread_cond_clockwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, clockid_t clock,
                           const struct timespec *restrict until) {
  struct timespec t = as_kernel(until);
  return REAL(pthread_cond_clockwait)(c, m, clock, &t);
}

int sem_timedwait(sem_t *restrict s, const struct timespec *restrict until) {
  struct timespec t = as_kernel(until);
  return REAL(sem_timedwait)(s, &t);
}

int sem_clockwait(sem_t *restrict s, clockid_t clock, const struct timespec *restrict until) {
  struct timespec t = as_kernel(until);
  return REAL(sem_clockwait)(s, clock, &t);
}
