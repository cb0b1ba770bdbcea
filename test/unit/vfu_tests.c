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
	bool stopped;
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
	vt.stopped = false;
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
vt_stop(void)
{
	if (vt.stopped)
		return;
	eventfd_write(vt.stop_fd, 1);
	pthread_join(vt.thread, NULL);
	vt.stopped = true;
	assert_int_equal(vt.ret, 0);
}

void
vt_close(void)
{
	vt_stop();
	vd_close(&dev);
	close(vt.listen_fd);
	close(vt.stop_fd);
	unlink(vt_path);
	rmdir(vt.dir);
	vt_wait(vt_count_fds() == vt.fds);
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

/* ---- a client's end ---- */

struct vt_message vt_got;

int
vt_connect(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, vt_path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

bool
vt_try_send(int fd, const void *bytes, size_t len, const int *fds, unsigned int nb_fds)
{
	union {
		char bytes[CMSG_SPACE(253 * sizeof(int))];
		struct cmsghdr header;
	} control = {{0}};
	struct iovec iov = {(void *)(uintptr_t)bytes, len};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (nb_fds > 0) {
		hdr.msg_control = &control;
		hdr.msg_controllen = CMSG_SPACE(nb_fds * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(nb_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, nb_fds * sizeof(int));
	}
	while (iov.iov_len > 0) {
		n = sendmsg(fd, &hdr, MSG_NOSIGNAL);
		if (n < 0)
			return false;
		hdr.msg_control = NULL;
		hdr.msg_controllen = 0;
		iov.iov_base = (uint8_t *)iov.iov_base + n;
		iov.iov_len -= n;
	}
	return true;
}

void
vt_send(int fd, const void *bytes, size_t len, const int *fds, unsigned int nb_fds)
{
	assert_true(vt_try_send(fd, bytes, len, fds, nb_fds));
}

void
vt_post(int fd, uint16_t command, uint32_t flags, const void *payload, size_t len, const int *fds,
	unsigned int nb_fds)
{
	static uint16_t id;
	static uint8_t bytes[VFU_MAX_MESSAGE];
	struct vfu_header h = {id += 7, command, sizeof(h) + len, flags, 0};

	assert_true(len <= VFU_MAX_PAYLOAD);
	memcpy(bytes, &h, sizeof(h));
	if (len > 0)
		memcpy(bytes + sizeof(h), payload, len);
	vt_send(fd, bytes, sizeof(h) + len, fds, nb_fds);
	vt_got.header = h; /* that vt_ask() can compare */
}

bool
vt_next(int fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE((VFU_MAX_FDS + 1) * sizeof(int))];
	} control;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint8_t *bytes[] = {(uint8_t *)&vt_got.header, vt_got.payload};
	size_t want[] = {sizeof(vt_got.header), 0}, have;
	unsigned int i;

	vt_got.nb_fds = 0;
	for (i = 0; i < 2; i++) {
		for (have = 0; have < want[i];) {
			struct iovec iov = {bytes[i] + have, want[i] - have};
			struct msghdr hdr = {.msg_iov = &iov,
				.msg_iovlen = 1,
				.msg_control = &control,
				.msg_controllen = sizeof(control)};
			ssize_t n;

			assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
			n = recvmsg(fd, &hdr, MSG_CMSG_CLOEXEC);
			if (n <= 0)
				return false;
			have += n;
			if (hdr.msg_controllen > 0) {
				assert_int_equal(vt_got.nb_fds, 0);
				vt_got.nb_fds =
					(control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
				memcpy(vt_got.fds, CMSG_DATA(&control.header),
					vt_got.nb_fds * sizeof(int));
			}
		}
		if (i == 0) {
			assert_in_range(vt_got.header.size, sizeof(vt_got.header), VFU_MAX_MESSAGE);
			want[1] = vt_got.header.size - sizeof(vt_got.header);
		}
	}
	vt_got.len = want[1];
	for (i = 0; i < vt_got.nb_fds; i++)
		close(vt_got.fds[i]);
	return true;
}

int
vt_ask(int fd, uint16_t command, const void *payload, size_t len, const int *fds,
	unsigned int nb_fds)
{
	uint16_t id;

	dev.server->told = 0;
	vt_post(fd, command, 0, payload, len, fds, nb_fds);
	id = vt_got.header.id;
	if (!vt_next(fd))
		return -EPIPE;
	assert_int_equal(vt_got.header.id, id);
	assert_int_equal(vt_got.header.command, command);
	if (vt_got.header.flags == (VFU_TYPE_REPLY | VFU_ERROR)) {
		assert_int_equal(vt_got.len, 0);
		assert_int_equal(vt_got.nb_fds, 0);
		return -(int)vt_got.header.error;
	}
	assert_int_equal(vt_got.header.flags, VFU_TYPE_REPLY);
	assert_int_equal(vt_got.header.error, 0);
	return vt_got.len;
}

void
vt_refused(int fd, uint16_t command, const void *payload, size_t len, const int *fds,
	unsigned int nb_fds, int error, const char *why)
{
	int ret = vt_ask(fd, command, payload, len, fds, nb_fds);

	if (ret != -error)
		print_error("command %u: %d and not %d: %s\n", command, ret, -error, why);
	assert_int_equal(ret, -error);
	if (why != NULL && !vt_logged(why))
		fail_msg("command %u: the log does not have: %s", command, why);
}

int
vt_ready(void)
{
	static const struct {
		struct vfu_version version;
		char json[sizeof(VT_JSON)];
	} mine = {{VFU_MAJOR, VFU_MINOR}, VT_JSON};
	int fd = vt_connect();

	assert_true(vt_ask(fd, VFU_VERSION, &mine, sizeof(mine), NULL, 0) > 4);
	return fd;
}

bool
vt_hung_up(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char byte;

	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	return recv(fd, &byte, 1, MSG_DONTWAIT) <= 0;
}

void
vt_works(int fd)
{
	struct vfu_device_info info = {.argsz = sizeof(info)};

	assert_int_equal(
		vt_ask(fd, VFU_DEVICE_GET_INFO, &info, sizeof(info), NULL, 0), sizeof(info));
	memcpy(&info, vt_got.payload, sizeof(info));
	assert_int_equal(info.num_regions, VD_NB_REGIONS);
	assert_int_equal(info.num_irqs, VD_NB_IRQS);
}
