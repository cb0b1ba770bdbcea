/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Messages over a bridge. On the threads of whoever sends and receives. */

#include <errno.h>
#include <string.h>

#include "ntb_mailbox.h"

void
ntb_mailbox_init(struct ntb_mailbox *m, struct ntb *ntb, uint64_t at, unsigned int doorbell)
{
	*m = (struct ntb_mailbox){.ntb = ntb, .at = at, .doorbell = UINT32_C(1) << doorbell};
}

static struct ntb_mailbox_area *
area(const struct ntb_mailbox *m, const struct ntb_window *w)
{
	return (struct ntb_mailbox_area *)(w->host + m->at);
}

static uint32_t
sum_of(uint32_t number, uint32_t length, const uint8_t *message)
{
	uint32_t sum = number * 31 + length, i;

	for (i = 0; i < length; i++)
		sum = sum * 31 + message[i];
	return sum;
}

int
ntb_mailbox_send(struct ntb_mailbox *m, const void *message, size_t len)
{
	uint32_t *taken = &area(m, &m->ntb->in)->taken, number = m->sent + 1, in_flight;
	struct ntb_mailbox_slot *slot = &area(m, &m->ntb->out)->slot[m->sent % NTB_MAILBOX_SLOTS];

	if (len > NTB_MAILBOX_MESSAGE)
		return -EMSGSIZE;
	ntb_invalidate(m->ntb, taken, sizeof(*taken));
	in_flight = m->sent - __atomic_load_n(taken, __ATOMIC_RELAXED);
	if (in_flight > NTB_MAILBOX_SLOTS)
		return -EPROTO;
	if (in_flight == NTB_MAILBOX_SLOTS)
		return -EAGAIN;
	memcpy(slot->message, message, len);
	slot->sum = sum_of(number, len, message);
	slot->length = len;
	slot->reserved = 0;
	ntb_flush(m->ntb, &slot->sum,
		offsetof(struct ntb_mailbox_slot, message[len]) -
			offsetof(struct ntb_mailbox_slot, sum));
	__atomic_store_n(&slot->number, number, __ATOMIC_RELAXED);
	ntb_flush(m->ntb, &slot->number, sizeof(slot->number));
	m->sent = number;
	ntb_ring(m->ntb, m->doorbell);
	return 0;
}

static uint32_t
number_of(struct ntb_mailbox *m, uint32_t received)
{
	uint32_t *number = &area(m, &m->ntb->in)->slot[received % NTB_MAILBOX_SLOTS].number;

	ntb_invalidate(m->ntb, number, sizeof(*number));
	return __atomic_load_n(number, __ATOMIC_RELAXED);
}

ssize_t
ntb_mailbox_receive(struct ntb_mailbox *m, void *message)
{
	struct ntb_mailbox_slot *slot =
		&area(m, &m->ntb->in)->slot[m->received % NTB_MAILBOX_SLOTS];
	uint32_t *taken = &area(m, &m->ntb->out)->taken, number = m->received + 1, len;

	if (number_of(m, m->received) != number) {
		/* They arrive in order: if the one after is there, it should be, too. */
		if (number_of(m, number) != number + 1)
			return -EAGAIN;
		if (number_of(m, m->received) != number)
			return -EPROTO;
	}
	ntb_invalidate(m->ntb, slot, sizeof(*slot));
	len = slot->length;
	if (len > NTB_MAILBOX_MESSAGE)
		return -EPROTO;
	memcpy(message, slot->message, len);
	if (slot->sum != sum_of(number, len, message))
		return -EPROTO;
	m->received = number;
	__atomic_store_n(taken, number, __ATOMIC_RELAXED);
	ntb_flush(m->ntb, taken, sizeof(*taken));
	return len;
}
