/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Between lib/vfio_user's client and a server that is right: a thread that changes what the server
 * says.
 */

#ifndef VFU_PROXY_H
#define VFU_PROXY_H

#include "vfu_tests.h"

#define ALL UINT32_MAX

/* What is done to a reply. */
static struct plan {
	unsigned int number; /* of the reply: 0 is the version's */
	uint32_t cut;	     /* bytes of it that are sent, and then hung up; ALL */
	bool swallow;	     /* it is not sent, nor hung up */
	bool flood;	     /* commands are sent instead, without an end */
	bool drop_fds;
	unsigned int more_fds;
	int32_t longer; /* bytes of the payload, with the header's size */
	/* That many bytes of the message are set, at that place. */
	struct {
		uint32_t at, len;
		uint64_t value;
	} set[3];
} plan;

static struct {
	pthread_t thread;
	int listen_fd;
	char path[80];
	atomic_bool stop;
	size_t size; /* of the last reply that the plan was for, as the server sent it */
} proxy;

static bool
take(int fd, uint8_t *bytes, int *fds, unsigned int *nb_fds)
{
	union {
		char bytes[CMSG_SPACE(VFU_MAX_FDS * sizeof(int))];
		struct cmsghdr header;
	} control;
	struct vfu_header *h = (struct vfu_header *)bytes;
	struct iovec iov = {bytes, sizeof(*h)};
	struct msghdr hdr = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};

	*nb_fds = 0;
	if (recvmsg(fd, &hdr, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof(*h))
		return false;
	if (hdr.msg_controllen > 0) {
		*nb_fds = (control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(&control.header), *nb_fds * sizeof(int));
	}
	return h->size == sizeof(*h) ||
		recv(fd, h + 1, h->size - sizeof(*h), MSG_WAITALL) ==
		(ssize_t)(h->size - sizeof(*h));
}

/* False: it went wrong, as it should. */
static bool
give(int fd, const uint8_t *bytes, size_t len, const int *fds, unsigned int nb_fds)
{
	union {
		char bytes[CMSG_SPACE(64 * sizeof(int))];
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

static void
flood(int fd)
{
	const struct {
		struct vfu_header h;
		struct vfu_dma_access a;
	} m = {{1, VFU_DMA_READ, sizeof(m), VFU_NO_REPLY, 0}, {0, 8}};

	while (give(fd, (const uint8_t *)&m, sizeof(m), NULL, 0))
		;
}

/* One reply; false: nothing may follow. */
static bool
pass(int fd, uint8_t *bytes, int *fds, unsigned int nb_fds, bool planned)
{
	struct vfu_header *h = (struct vfu_header *)bytes;
	unsigned int i;
	size_t len;

	if (!planned)
		return give(fd, bytes, h->size, fds, nb_fds);
	proxy.size = h->size;
	if (plan.swallow)
		return true;
	if (plan.flood) {
		flood(fd);
		return false;
	}
	if (plan.drop_fds)
		nb_fds = 0;
	for (i = 0; i < plan.more_fds; i++)
		fds[nb_fds++] = fd;
	len = h->size += plan.longer;
	for (i = 0; i < 3; i++)
		memcpy(bytes + plan.set[i].at, &plan.set[i].value, plan.set[i].len);
	if (plan.cut != ALL)
		len = plan.cut;
	return (len == 0 || give(fd, bytes, len, fds, nb_fds)) && plan.cut == ALL;
}

static void *
proxy_run(void *arg)
{
	static uint8_t bytes[VFU_MAX_MESSAGE + 4096];
	unsigned int number, nb_fds, i;
	int client, server, fds[64];
	bool ok;

	(void)arg;
	for (;;) {
		client = accept4(proxy.listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (proxy.stop) {
			close(client);
			return NULL;
		}
		server = vt_connect();
		ok = true;
		for (number = 0; ok; number++) {
			memset(bytes, 0, 1024);
			ok = take(client, bytes, fds, &nb_fds) &&
				give(server, bytes, ((struct vfu_header *)bytes)->size, fds,
					nb_fds);
			for (i = 0; i < nb_fds; i++)
				close(fds[i]);
			if (!ok)
				break;
			ok = take(server, bytes, fds, &nb_fds);
			i = nb_fds;
			ok = ok && pass(client, bytes, fds, nb_fds, number == plan.number);
			while (i > 0)
				close(fds[--i]);
		}
		close(client);
		close(server);
	}
}

static void
proxy_open(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	vt_open(0);
	plan = (struct plan){.number = ALL};
	proxy.stop = false;
	snprintf(proxy.path, sizeof(proxy.path), "%s.proxy", vt_path);
	strcpy(addr.sun_path, proxy.path);
	proxy.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(proxy.listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(proxy.listen_fd, 8), 0);
	assert_int_equal(pthread_create(&proxy.thread, NULL, proxy_run, NULL), 0);
}

static void
proxy_close(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	proxy.stop = true;
	strcpy(addr.sun_path, proxy.path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	pthread_join(proxy.thread, NULL);
	close(fd);
	close(proxy.listen_fd);
	unlink(proxy.path);
	vt_close();
}

#endif /* VFU_PROXY_H */
