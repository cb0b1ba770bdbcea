/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Messages of a link: which there are, who sends them, and how long they are. Any thread. */

#include <string.h>

#include "vfn_msg.h"

/* Who sends a message, or its request. */
enum { DRIVER = 1, DEVICE = 2, ANY = 3 };

#define BYTES(member) sizeof(((union vfn_message *)NULL)->member)

/* What follows of variable length: its size is said by a field, in such pieces. */
enum tail { NO_TAIL, BLOCKS, CONFIG, REG };

static const struct kind {
	uint8_t bus, id, sender;
	bool event;
	uint8_t request, response; /* bytes behind the header */
	uint8_t request_tail, response_tail;
} kinds[] = {
	{0, VFN_MSG_GET_DEVICE_INFO, DRIVER, false, 0, BYTES(info), 0, 0},
	{0, VFN_MSG_GET_DEVICE_FEATURES, DRIVER, false, BYTES(features), BYTES(features), 0,
		BLOCKS},
	{0, VFN_MSG_SET_DRIVER_FEATURES, DRIVER, false, BYTES(features), 0, BLOCKS, 0},
	{0, VFN_MSG_GET_CONFIG, DRIVER, false, BYTES(get_config), BYTES(config), 0, CONFIG},
	{0, VFN_MSG_SET_CONFIG, DRIVER, false, BYTES(config), BYTES(config), CONFIG, CONFIG},
	{0, VFN_MSG_GET_DEVICE_STATUS, DRIVER, false, 0, BYTES(status), 0, 0},
	{0, VFN_MSG_SET_DEVICE_STATUS, DRIVER, false, BYTES(status), BYTES(status), 0, 0},
	{0, VFN_MSG_GET_VQUEUE, DRIVER, false, BYTES(index), BYTES(vqueue), 0, 0},
	{0, VFN_MSG_SET_VQUEUE, DRIVER, false, BYTES(vqueue), 0, 0, 0},
	{0, VFN_MSG_RESET_VQUEUE, DRIVER, false, BYTES(index), 0, 0, 0},
	{0, VFN_MSG_GET_SHM, DRIVER, false, BYTES(index), BYTES(shm), 0, 0},
	{0, VFN_MSG_EVENT_CONFIG, DEVICE, true, BYTES(event_config), 0, 0, 0},
	{0, VFN_MSG_EVENT_AVAIL, DRIVER, true, BYTES(event_avail), 0, 0, 0},
	{0, VFN_MSG_EVENT_USED, DEVICE, true, BYTES(index), 0, 0, 0},
	{1, VFN_MSG_BUS_GET_DEVICES, DRIVER, false, BYTES(devices), BYTES(found), 0, 0},
	{1, VFN_MSG_BUS_PING, ANY, false, BYTES(ping), BYTES(ping), 0, 0},
	{1, VFN_MSG_BUS_EVENT_DEVICE, DEVICE, true, BYTES(devices), 0, 0, 0},
	{1, VFN_MSG_BUS_GET_REG, DRIVER, false, BYTES(reg), BYTES(reg), 0, REG},
	{1, VFN_MSG_BUS_DMA_MAP, DRIVER, false, BYTES(dma), BYTES(result), 0, 0},
	{1, VFN_MSG_BUS_DMA_UNMAP, DRIVER, false, BYTES(dma), BYTES(result), 0, 0},
	{1, VFN_MSG_BUS_SET_IRQ, DRIVER, false, BYTES(number), BYTES(result), 0, 0},
	{1, VFN_MSG_BUS_SET_DOORBELL, DRIVER, false, BYTES(number), BYTES(result), 0, 0},
	{1, VFN_MSG_BUS_SET_CONTROL, DRIVER, false, BYTES(control), BYTES(result), 0, 0},
	{1, VFN_MSG_BUS_SET_REG, DRIVER, true, BYTES(reg), 0, REG, 0},
	{1, VFN_MSG_BUS_EVENT_VECTOR, DEVICE, true, BYTES(number), 0, 0, 0},
};

static const struct kind *
kind_of(uint8_t type, uint8_t id)
{
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].id == id && kinds[i].bus == !!(type & VFN_MSG_BUS))
			return &kinds[i];
	return NULL;
}

/* Bytes of what is of variable length, as it says; at most 2^34. */
static uint64_t
tail_of(const union vfn_message *msg, enum tail tail)
{
	switch (tail) {
	case BLOCKS:
		return (uint64_t)msg->features.num * sizeof(msg->features.block[0]);
	case CONFIG:
		return msg->config.size;
	case REG:
		return msg->reg.len;
	default:
		return 0;
	}
}

const char *
vfn_msg_wrong(const union vfn_message *msg, size_t len, bool from_driver)
{
	const struct vfn_msg_header *h = &msg->header;
	bool response = len >= sizeof(*h) && h->type & VFN_MSG_RESPONSE;
	const struct kind *kind;
	size_t fixed;

	if (len < sizeof(*h) || len > VFN_MSG_MAX || h->msg_size < sizeof(*h) || h->msg_size > len)
		return "its size is none";
	kind = kind_of(h->type, h->msg_id);
	if (kind == NULL)
		return "there is no such message";
	if (!(kind->sender & (from_driver != response ? DRIVER : DEVICE)) ||
		(response && kind->event))
		return "it is not the sender's";
	if ((h->token == 0) != kind->event)
		return kind->event ? "it is an event with a token" : "it has no token";
	if (h->dev_num != 0)
		return "there is no such device";
	fixed = sizeof(*h) + (response ? kind->response : kind->request);
	if (h->msg_size < fixed)
		return "it is too short";
	if (tail_of(msg, response ? kind->response_tail : kind->request_tail) > h->msg_size - fixed)
		return "it is shorter than it says";
	return NULL;
}

void
vfn_msg_init(union vfn_message *msg, uint8_t type, uint8_t id, uint16_t token)
{
	const struct kind *kind = kind_of(type, id);

	memset(msg, 0, sizeof(*msg));
	msg->header = (struct vfn_msg_header){.type = type,
		.msg_id = id,
		.token = token,
		.msg_size = sizeof(msg->header) +
			(type & VFN_MSG_RESPONSE ? kind->response : kind->request)};
}
