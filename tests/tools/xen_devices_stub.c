// Xen's grant and event channel devices for a program on a machine without Xen (LD_PRELOAD): they open, and there is
// nothing behind them. Enough for a guest's process until a frontend connects.
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int ports = -1;
static char grants;

void* xengnttab_open(void* logger, unsigned flags) {
  (void)logger;
  (void)flags;
  return &grants;
}

int xengnttab_close(void* handle) {
  (void)handle;
  return 0;
}

void* xengnttab_map_domain_grant_refs(void* handle, uint32_t count, uint32_t domain, uint32_t* refs,
                                      int protection) {
  (void)handle;
  (void)count;
  (void)domain;
  (void)refs;
  (void)protection;
  errno = EINVAL;
  return NULL;
}

void* xenevtchn_open(void* logger, unsigned flags) {
  (void)logger;
  (void)flags;
  ports = eventfd(0, EFD_CLOEXEC);
  return &ports;
}

int xenevtchn_close(void* handle) {
  (void)handle;
  return close(ports);
}

int xenevtchn_fd(void* handle) {
  (void)handle;
  return ports;
}

int xenevtchn_restrict(void* handle, uint16_t domain) {
  (void)handle;
  (void)domain;
  return 0;
}
