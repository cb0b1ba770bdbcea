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
/** Stop the server. Nothing may be left: no descriptor, no map. */
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

#endif /* VFU_TESTS_H */
