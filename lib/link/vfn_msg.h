/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The calls of a link as messages: those of virtio-msg, a draft that is in no released version of
 * virtio ("Virtio Over Messages", revision 1 as of November 2025), and in its range for messages
 * of a bus what a link has beyond that. doc/ntb.md says which call is which message.
 *
 * Everything is little-endian and naturally aligned.
 */

#ifndef VFN_MSG_H
#define VFN_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfn_regs.h"

/** Of both sides; changes with every message that the other would misread. */
#define VFN_MSG_VERSION 1
/** Bytes of a message: what a bus has to carry. */
#define VFN_MSG_MAX 304

/** vfn_msg_header.type. Other bits are ignored. */
#define VFN_MSG_RESPONSE 1u
#define VFN_MSG_BUS	 2u

enum vfn_msg_id {
	VFN_MSG_GET_DEVICE_INFO = 0x02,
	VFN_MSG_GET_DEVICE_FEATURES = 0x03,
	VFN_MSG_SET_DRIVER_FEATURES = 0x04,
	VFN_MSG_GET_CONFIG = 0x05,
	VFN_MSG_SET_CONFIG = 0x06,
	VFN_MSG_GET_DEVICE_STATUS = 0x07,
	VFN_MSG_SET_DEVICE_STATUS = 0x08,
	VFN_MSG_GET_VQUEUE = 0x09,
	VFN_MSG_SET_VQUEUE = 0x0a,
	VFN_MSG_RESET_VQUEUE = 0x0b,
	VFN_MSG_GET_SHM = 0x0c,
	/* Events: nobody answers. The second one is the driver's. */
	VFN_MSG_EVENT_CONFIG = 0x40,
	VFN_MSG_EVENT_AVAIL = 0x41,
	VFN_MSG_EVENT_USED = 0x42,
};

/** With VFN_MSG_BUS. From 0x80 on they are ours, from 0xc0 on events. */
enum vfn_msg_bus_id {
	VFN_MSG_BUS_GET_DEVICES = 0x02,
	VFN_MSG_BUS_PING = 0x03,
	VFN_MSG_BUS_EVENT_DEVICE = 0x40,

	VFN_MSG_BUS_OURS = 0x80,
	VFN_MSG_BUS_GET_REG = 0x80,	 /**< struct vfn_msg_reg; answered with the bytes. */
	VFN_MSG_BUS_DMA_MAP = 0x81,	 /**< struct vfn_msg_dma; as all from here on answered */
	VFN_MSG_BUS_DMA_UNMAP = 0x82,	 /**< with struct vfn_msg_result. */
	VFN_MSG_BUS_SET_IRQ = 0x83,	 /**< struct vfn_msg_number: is a vector signalled? */
	VFN_MSG_BUS_SET_DOORBELL = 0x84, /**< struct vfn_msg_number: is a queue's rung? */
	VFN_MSG_BUS_SET_CONTROL = 0x85,	 /**< struct vfn_msg_control. */

	VFN_MSG_BUS_SET_REG = 0xc0,	 /**< The driver's: struct vfn_msg_reg and the bytes. */
	VFN_MSG_BUS_EVENT_VECTOR = 0xc1, /**< The device's: struct vfn_msg_number. */
};

struct vfn_msg_header {
	uint8_t type;
	uint8_t msg_id;
	uint16_t dev_num; /**< 0: of the bus; and there is but device 0. */
	uint16_t token;	  /**< 0: event. An answer has that of its request. */
	uint16_t msg_size;
};

/* ---- of virtio-msg ---- */

struct vfn_msg_device_info {
	uint32_t device_id;
	uint32_t vendor_id;
	uint32_t nb_feature_bits;
	uint32_t config_size;
	uint32_t max_vqs;
	uint16_t admin_vq_start, admin_vq_count;
};

/** Blocks of 32 feature bits; they follow, but not in the request for them. */
struct vfn_msg_features {
	uint32_t index;
	uint32_t num;
	uint32_t block[];
};

struct vfn_msg_get_config {
	uint32_t offset;
	uint32_t size;
};

/** The answer to it; and request and answer of SET_CONFIG: size 0 there if it was refused. */
struct vfn_msg_config {
	uint32_t generation;
	uint32_t offset;
	uint32_t size;
	uint8_t data[];
};

struct vfn_msg_status {
	uint32_t status;
};

struct vfn_msg_index {
	uint32_t index;
};

/** Answer of GET_VQUEUE; request of SET_VQUEUE, without max_size. */
struct vfn_msg_vqueue {
	uint32_t index;
	uint32_t max_size;
	uint32_t size;
	uint32_t reserved;
	uint64_t desc, driver, device;
};

struct vfn_msg_shm {
	uint32_t index, length, address;
};

struct vfn_msg_event_config {
	uint32_t status;
	uint32_t generation;
	uint32_t offset;
	uint32_t size;
};

struct vfn_msg_event_avail {
	uint32_t index;
	uint32_t next;
};

struct vfn_msg_devices {
	uint16_t offset;
	uint16_t num;
};

struct vfn_msg_devices_found {
	uint16_t offset;
	uint16_t num;
	uint16_t next_offset;
	uint8_t bits[2];
};

/* ---- ours ---- */

/** len bytes of a region, enum vfn_region. In an answer 0 bytes: there are no such registers. */
struct vfn_msg_reg {
	uint32_t offset;
	uint16_t region;
	uint16_t len;
	uint8_t data[];
};
#define VFN_MSG_REG_MAX 256

#define VFN_MSG_DMA_READ  1u
#define VFN_MSG_DMA_WRITE 2u

struct vfn_msg_dma {
	uint32_t space; /**< enum vfn_dma_space */
	uint32_t flags; /**< of the map: VFN_MSG_DMA_* */
	uint64_t iova;
	uint64_t len;
	uint64_t bus; /**< of the map: in one of the windows */
};

struct vfn_msg_number {
	uint32_t number;
	uint32_t on;
};

/** As struct vfn_endpoint_control. */
struct vfn_msg_control {
	uint64_t features;
	uint8_t mac[6];
	uint16_t mtu;
	uint16_t max_pairs;
	uint16_t reserved[3];
};

struct vfn_msg_result {
	int32_t error; /**< 0 or a negative errno value. */
};

/** A message of any kind. */
union vfn_message {
	struct vfn_msg_header header;
	struct {
		struct vfn_msg_header same;
		union {
			uint8_t bytes[VFN_MSG_MAX - sizeof(struct vfn_msg_header)];
			struct vfn_msg_device_info info;
			struct vfn_msg_features features;
			struct vfn_msg_get_config get_config;
			struct vfn_msg_config config;
			struct vfn_msg_status status;
			struct vfn_msg_index index;
			struct vfn_msg_vqueue vqueue;
			struct vfn_msg_shm shm;
			struct vfn_msg_event_config event_config;
			struct vfn_msg_event_avail event_avail;
			struct vfn_msg_devices devices;
			struct vfn_msg_devices_found found;
			struct vfn_msg_reg reg;
			struct vfn_msg_dma dma;
			struct vfn_msg_number number;
			struct vfn_msg_control control;
			struct vfn_msg_result result;
			uint32_t ping;
		};
	};
};
_Static_assert(sizeof(union vfn_message) == VFN_MSG_MAX, "no room is wasted");
#define VFN_MSG_HEADER	     sizeof(struct vfn_msg_header)
#define VFN_MSG_SIZE(member) (VFN_MSG_HEADER + sizeof(((union vfn_message *)NULL)->member))

/**
 * Judge what has come: nothing of it that says how much there is says more than there is, and all
 * that its kind has is there.
 *
 * @param len
 *   Bytes that came.
 * @param from_driver
 *   Who sent it.
 * @return
 *   NULL: it is good; or what is wrong with it, in words.
 */
const char *vfn_msg_wrong(const union vfn_message *msg, size_t len, bool from_driver);

/** Begin a message; its size is that of what it always has. The rest is 0. */
void vfn_msg_init(union vfn_message *msg, uint8_t type, uint8_t id, uint16_t token);

#endif /* VFN_MSG_H */
