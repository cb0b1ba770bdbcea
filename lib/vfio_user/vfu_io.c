/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Messages over a socket: whole ones in, whole ones out, with their descriptors. Any thread. */

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "vfu_private.h"

/*
 * As many as the kernel lets a message have (SCM_MAX_FD). What there is no room for it would drop
 * on this thread, which may wait for that.
 */
#define ROOM_FDS 253

unsigned int vfu_timeout_ms = 5000;

uint64_t
vfu_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000) + now.tv_nsec / 1000000;
}

bool
vfu_wait(int fd, short events, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t now;
	int n;

	do {
		now = vfu_now_ms();
		n = poll(&p, 1, now < deadline ? deadline - now : 0);
	} while (n < 0 && errno == EINTR);
	return n > 0;
}

bool
vfu_in_init(struct vfu_in *in, struct vfn_closer *closer)
{
	*in = (struct vfu_in){.bytes = malloc(VFU_MAX_MESSAGE), .closer = closer};
	return in->bytes != NULL;
}

/*
 * Closing shared memory and eventfds waits for nobody; what they are the kernel says without asking
 * whoever serves the file.
 */
void
vfu_drop(struct vfn_closer *closer, int fd)
{
	if (closer == NULL || fcntl(fd, F_GET_SEALS) >= 0 || vfn_is_event(fd))
		close(fd);
	else
		vfn_close_later(closer, fd);
}

void
vfu_in_free(struct vfu_in *in)
{
	vfu_in_reset(in);
	free(in->bytes);
	in->bytes = NULL;
}

void
vfu_in_reset(struct vfu_in *in)
{
	while (in->nb_fds > 0)
		vfu_drop(in->closer, in->fds[--in->nb_fds]);
	in->have = 0;
	in->surplus = false;
}

static void
take_fds(struct msghdr *hdr, struct vfu_in *in)
{
	struct cmsghdr *c;
	size_t i, n;
	int fd;

	if (hdr->msg_flags & MSG_CTRUNC)
		in->surplus = true;
	for (c = CMSG_FIRSTHDR(hdr); c != NULL; c = CMSG_NXTHDR(hdr, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(fd);
		for (i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (in->nb_fds < VFU_MAX_FDS) {
				in->fds[in->nb_fds++] = fd;
			} else {
				in->surplus = true;
				vfu_drop(in->closer, fd);
			}
		}
	}
}

enum vfu_io
vfu_receive(int fd, struct vfu_in *in)
{
	char control[CMSG_SPACE(ROOM_FDS * sizeof(int))] __attribute__((aligned(8)));
	size_t want;
	ssize_t n;

	for (;;) {
		struct iovec iov;
		struct msghdr hdr = {.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control)};

		want = sizeof(*in->header);
		if (in->have >= want) {
			want = in->header->size;
			if (want < sizeof(*in->header) || want > VFU_MAX_MESSAGE)
				return VFU_IO_NONSENSE;
		}
		if (in->have >= want)
			return VFU_IO_DONE;
		iov = (struct iovec){in->bytes + in->have, want - in->have};
		n = recvmsg(fd, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return VFU_IO_WAIT;
		if (n <= 0)
			return VFU_IO_END;
		if (in->have == 0)
			in->deadline = vfu_now_ms() + vfu_timeout_ms;
		take_fds(&hdr, in);
		in->have += n;
	}
}

/* Descriptors that nobody has read go with the socket, and whoever closes it waits for them. */
void
vfu_hang_up(int fd, struct vfn_closer *closer)
{
	uint8_t any;

	shutdown(fd, SHUT_RDWR);
	if (closer != NULL && recv(fd, &any, sizeof(any), MSG_PEEK | MSG_DONTWAIT) > 0)
		vfn_close_later(closer, fd);
	else
		close(fd);
}

bool
vfu_send(int fd, struct vfu_out *out)
{
	char control[CMSG_SPACE(VFU_MAX_FDS * sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec iov[] = {
		{&out->header, sizeof(out->header)},
		{(void *)(uintptr_t)out->head, out->head_len},
		{(void *)(uintptr_t)out->data, out->data_len},
	};
	struct msghdr hdr = {.msg_iov = iov, .msg_iovlen = sizeof(iov) / sizeof(iov[0])};
	uint64_t deadline = 0;
	struct cmsghdr *c;
	unsigned int i;
	ssize_t n;

	out->header.size = sizeof(out->header) + out->head_len + out->data_len;
	if (out->nb_fds > 0) {
		hdr.msg_control = control;
		hdr.msg_controllen = CMSG_SPACE(out->nb_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(out->nb_fds * sizeof(int));
		memcpy(CMSG_DATA(c), out->fds, out->nb_fds * sizeof(int));
	}
	for (;;) {
		n = sendmsg(fd, &hdr, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN) {
			if (deadline == 0)
				deadline = vfu_now_ms() + vfu_timeout_ms;
			if (!vfu_wait(fd, POLLOUT, deadline))
				return false;
			continue;
		}
		if (n < 0 && errno != EINTR)
			return false;
		if (n < 0)
			continue;
		/* The descriptors went with the first bytes. */
		hdr.msg_control = NULL;
		hdr.msg_controllen = 0;
		for (i = 0; i < sizeof(iov) / sizeof(iov[0]); i++) {
			size_t part = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;

			if (part == 0)
				continue; /* there may be no base */
			iov[i].iov_base = (uint8_t *)iov[i].iov_base + part;
			iov[i].iov_len -= part;
			n -= part;
		}
		if (iov[0].iov_len + iov[1].iov_len + iov[2].iov_len == 0)
			return true;
	}
}
