/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the tests of lib/vfio_user share, see vfu_tests.h.
 */

#include "vfu_tests.h"

struct vfu_dev dev;
char vt_path[64];

static struct {
	pthread_t thread;
	int listen_fd, stop_fd;
	int ret;
	char dir[32];
	unsigned int fds;  /* before it all */
	unsigned int seen; /* lines of the log */
} vt;

unsigned int
vt_count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

static void *
serve(void *arg)
{
	(void)arg;
	vt.ret = vfu_serve(dev.server, vt.listen_fd, -1, vt.stop_fd);
	return NULL;
}

void
vt_open(unsigned int without)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	vt.fds = vt_count_fds();
	vt.seen = 0;
	strcpy(vt.dir, "/tmp/vfu-XXXXXX");
	assert_non_null(mkdtemp(vt.dir));
	snprintf(vt_path, sizeof(vt_path), "%s/socket", vt.dir);
	strcpy(addr.sun_path, vt_path);
	vt.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(vt.listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(vt.listen_fd, 8), 0);
	vt.stop_fd = eventfd(0, EFD_CLOEXEC);
	vd_open(&dev, without);
	assert_int_equal(pthread_create(&vt.thread, NULL, serve, NULL), 0);
}

void
vt_close(void)
{
	eventfd_write(vt.stop_fd, 1);
	pthread_join(vt.thread, NULL);
	assert_int_equal(vt.ret, 0);
	vd_close(&dev);
	close(vt.listen_fd);
	close(vt.stop_fd);
	unlink(vt_path);
	rmdir(vt.dir);
	assert_int_equal(vt_count_fds(), vt.fds);
}

bool
vt_logged(const char *text)
{
	bool found = false;

	pthread_mutex_lock(&dev.lock);
	while (!found && vt.seen < dev.nb_lines)
		found = strstr(dev.line[vt.seen++ % VD_MAX_LINES], text) != NULL;
	pthread_mutex_unlock(&dev.lock);
	return found;
}

int
vt_memory(size_t size)
{
	int fd = memfd_create("vfu_tests", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	return fd;
}
