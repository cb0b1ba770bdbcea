/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A message of a front-end's as librte_vhost hands it to handlers of others: as it came over the
 * socket, and behind the room for the longest one its descriptors.
 */

#ifndef VFN_VU_MSG_H
#define VFN_VU_MSG_H

#include <stdint.h>

#include <linux/vhost_types.h>

/* vhost-user protocol, "Front-end message types" */
enum {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	RESET_OWNER = 4,
	SET_MEM_TABLE = 5,
	SET_LOG_BASE = 6,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	SET_VRING_ENABLE = 18,
	SET_BACKEND_REQ_FD = 21,
	IOTLB_MSG = 22,
	GET_CONFIG = 24,
	SET_CONFIG = 25,
	GET_INFLIGHT_FD = 31,
	SET_INFLIGHT_FD = 32,
	SET_STATUS = 39,
	GET_STATUS = 40,
};

struct vfn_vu_msg {
	uint32_t request, flags, size; /* size: of what follows */
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} addr;
		struct vhost_iotlb_msg iotlb;
		struct {
			uint64_t size, offset;
		} log;
		struct {
			uint64_t size, offset;
			uint16_t queues, entries;
		} inflight;
	};
} __attribute__((packed));

#define VFN_MSG_FDS 8
struct vfn_msg_fds {
	int fd[VFN_MSG_FDS];
	int n;
} __attribute__((packed));

#endif /* VFN_VU_MSG_H */
