/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the tests of lib/vfio_user share: a server on a thread, and a client's end of its own
 * making.
 */

#ifndef VFU_TESTS_H
#define VFU_TESTS_H

#include <dirent.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "vfu_device.h"

#define PATIENCE_MS 20000

extern struct vfu_dev dev;
/** Of the server's socket; removed by vt_close(). */
extern char vt_path[64];

/** A device and a server that listens; without: VD_NO_*. */
void vt_open(unsigned int without);
/** Stop the server. */
void vt_stop(void);
/** The same, and free it. Nothing may be left: no descriptor, no map. */
void vt_close(void);
/** Wait until a condition holds that another thread makes true. */
#define vt_wait(cond) \
	do { \
		uint64_t end_ = vfu_now_ms() + PATIENCE_MS; \
		while (!(cond) && vfu_now_ms() < end_) \
			usleep(1000); \
		assert_true(cond); \
	} while (0)

unsigned int vt_count_fds(void);
/** Is the line in the log of the device? Forgets all lines up to it. */
bool vt_logged(const char *text);
/** A file of memory, of that size. */
int vt_memory(size_t size);

/* ---- a client's end, without anything of lib's client ---- */

/** What came last. */
struct vt_message {
	struct vfu_header header;
	uint8_t payload[VFU_MAX_PAYLOAD];
	size_t len; /* of the payload */
	int fds[VFU_MAX_FDS + 1];
	unsigned int nb_fds;
};
extern struct vt_message vt_got;

#define VT_JSON "{\"capabilities\":{\"max_msg_fds\":16,\"write_multiple\":true}}"

/** A connection. */
int vt_connect(void);
/** The same, and the version is agreed. */
int vt_ready(void);
/** Bytes, with descriptors; the peer takes them all. */
void vt_send(int fd, const void *bytes, size_t len, const int *fds, unsigned int nb_fds);
/** The same; false: it does not. */
bool vt_try_send(int fd, const void *bytes, size_t len, const int *fds, unsigned int nb_fds);
/** A message; flags are of the header, 0: a command. */
void vt_post(int fd, uint16_t command, uint32_t flags, const void *payload, size_t len,
	const int *fds, unsigned int nb_fds);
/** The next message is left in vt_got; false: the peer has hung up. What it has of fds is closed.
 */
bool vt_next(int fd);
/** A command and its reply: its payload's length, or a negative errno value. */
int vt_ask(int fd, uint16_t command, const void *payload, size_t len, const int *fds,
	unsigned int nb_fds);
/** The same, with the error and the reason that the log has to have. */
void vt_refused(int fd, uint16_t command, const void *payload, size_t len, const int *fds,
	unsigned int nb_fds, int error, const char *why);
/** Nothing comes any more, and the peer has closed. */
bool vt_hung_up(int fd);
/** The server works: what is asked is answered. */
void vt_works(int fd);

#endif /* VFU_TESTS_H */
