/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * The device parts of a virtio function, its saved form: in the window of
 * vfn_vendor_cfg.parts_offset, in files and on the way between processes. See doc/parts.md.
 *
 * A header and, back to back, the device parts of virtio 1.4 ("Device parts", "Network Device /
 * Device parts"), which the headers of the kernel that this is built with do not know yet.
 * Everything is little-endian and nothing is aligned.
 */

#ifndef VFN_PARTS_H
#define VFN_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vfn_regs.h"

#define VFN_PARTS_MAGIC	  0x534e4656 /* "VFNS" */
#define VFN_PARTS_VERSION 1	     /**< Changes when older readers would misread the parts. */

/** What the bytes begin with. */
struct vfn_parts_header {
	uint32_t magic;
	uint16_t version;
	uint16_t reserved; /**< 0. */
	uint32_t length;   /**< Bytes of the parts, up to the end. */
	uint32_t checksum; /**< Of these bytes: vfn_parts_checksum(). */
};

#define VFN_PART_OPTIONAL 1 /**< VIRTIO_DEV_PART_F_OPTIONAL: whoever does not know it skips it. */

/** Types of parts. */
enum vfn_part_type {
	VFN_PART_DEV_FEATURES = 0x100,	 /**< Offered, 64 bits. */
	VFN_PART_DRV_FEATURES = 0x101,	 /**< Set by the driver, 64 bits. */
	VFN_PART_COMMON_CFG = 0x102,	 /**< A field of struct vfn_common_cfg. */
	VFN_PART_STATUS = 0x103,	 /**< Device status, 8 bits. */
	VFN_PART_VQ_CFG = 0x104,	 /**< struct vfn_part_vq_cfg. */
	VFN_PART_VQ_NOTIFY = 0x105,	 /**< struct vfn_part_vq_notify. */
	VFN_PART_NET_CVQ = 0x200,	 /**< Data of a control queue's command. */
	VFN_PART_BLK_WRITEBACK = 0xf001, /**< virtio_blk_config.wce, 8 bits; as the next one. */
	/**
	 * struct vfn_part_vq_position. The standard has no part for it, nor types for vendors; this
	 * one is from the range that it reserves.
	 */
	VFN_PART_VQ_POSITION = 0xf000,
};

/** struct virtio_dev_part_hdr; the value follows. */
struct vfn_part {
	uint16_t type;
	uint8_t flags;
	uint8_t reserved; /**< 0. */
	union {
		uint8_t raw[8];
		uint32_t offset; /**< VFN_PART_COMMON_CFG; what it does not take is 0. */
		uint16_t queue;	 /**< VFN_PART_VQ_*. */
		struct {
			uint8_t class;
			uint8_t command;
		} cvq; /**< VFN_PART_NET_CVQ. */
	} __attribute__((packed, aligned(4))) selector;
	uint32_t length; /**< Bytes of the value. */
};
_Static_assert(sizeof(struct vfn_part) == 16, "layout of virtio 1.4, Device parts");

struct vfn_part_vq_cfg {
	uint16_t size;
	uint16_t vector;
	uint16_t enabled;
	uint16_t reserved;
	uint64_t desc;
	uint64_t driver;
	uint64_t device;
};

struct vfn_part_vq_notify {
	uint16_t notify_off;
	uint16_t notify_data;
	uint8_t reserved[4];
};

/** The registers of a queue that virtio does not have; positions as in struct vfn_vendor_cfg. */
struct vfn_part_vq_position {
	uint16_t avail;
	uint16_t used; /**< Equal to avail: what is in flight is not saved. */
	uint32_t reserved;
	uint64_t dirty; /**< vfn_vendor_cfg.queue_dirty. */
};

/**
 * The parts after the last commands of a control queue, for a successor. Of that queue's position
 * `used` is before them and `avail` behind. Two of these, used in turn, are behind the in-flight
 * region, at the next multiple of 64 bytes, if that is long enough.
 */
struct vfn_parts_said {
	uint64_t turn; /**< The larger one is valid; 0: none. */
	uint8_t parts[VFN_PARTS_SIZE];
};

/** 32 bits of FNV-1a: notices every single byte that is changed. */
static inline uint32_t
vfn_parts_checksum(const uint8_t *data, size_t len)
{
	uint32_t sum = 0x811c9dc5;

	while (len-- > 0)
		sum = (sum ^ *data++) * 0x01000193;
	return sum;
}

/**
 * Step through parts.
 *
 * @param at
 *   In: the first part, or where the last call left it. Out: behind the part.
 * @param left
 *   Bytes from there to the end.
 * @return
 *   The value of the part, whose header is copied; NULL if what is left holds no part, which is an
 *   error unless nothing is left.
 */
static inline const uint8_t *
vfn_parts_next(const uint8_t **at, size_t *left, struct vfn_part *part)
{
	const uint8_t *value;

	if (*left < sizeof(*part))
		return NULL;
	memcpy(part, *at, sizeof(*part));
	if (part->length > *left - sizeof(*part))
		return NULL;
	value = *at + sizeof(*part);
	*at = value + part->length;
	*left -= sizeof(*part) + part->length;
	return value;
}

/**
 * Value of the first part of a type, of `size` bytes. False if there is none like that;
 * the rest need not be valid.
 */
static inline bool
vfn_parts_find(const uint8_t *parts, size_t len, uint16_t type, void *value, size_t size)
{
	const uint8_t *at = parts + sizeof(struct vfn_parts_header), *found;
	struct vfn_part part;

	if (len < sizeof(struct vfn_parts_header))
		return false;
	len -= sizeof(struct vfn_parts_header);
	while ((found = vfn_parts_next(&at, &len, &part)) != NULL) {
		if (part.type == type && part.length == size) {
			memcpy(value, found, size);
			return true;
		}
	}
	return false;
}

#endif /* VFN_PARTS_H */
