/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The JSON of VFIO_USER_VERSION. Any thread. */

#include <stdlib.h>

#include <jansson.h>

#include "vfu_private.h"

/* False: it is there, and is no number from least on. One that is larger than ours is as good. */
static bool
number(const json_t *caps, const char *key, uint32_t least, uint32_t *value, bool *said)
{
	const json_t *v = json_object_get(caps, key);

	if (v == NULL)
		return true;
	if (!json_is_integer(v) || json_integer_value(v) < least)
		return false;
	*value = json_integer_value(v) > UINT32_MAX ? UINT32_MAX : json_integer_value(v);
	*said = true;
	return true;
}

static const char *
capabilities(const json_t *caps, struct vfu_peer *peer)
{
	const json_t *multi = json_object_get(caps, "write_multiple");
	const json_t *pgsizes = json_object_get(caps, "pgsizes");

	if (!json_is_object(caps))
		return "\"capabilities\" is no object";
	if (!number(caps, "max_msg_fds", 0, &peer->max_fds, &peer->said_fds))
		return "\"max_msg_fds\" is no number";
	if (!number(caps, "max_data_xfer_size", 1, &peer->max_xfer, &peer->said_xfer))
		return "\"max_data_xfer_size\" is no positive number";
	if (!number(caps, "max_dma_maps", 1, &peer->max_maps, &peer->said_maps))
		return "\"max_dma_maps\" is no positive number";
	if (pgsizes != NULL && !(json_integer_value(pgsizes) & VFU_PGSIZES))
		return "\"pgsizes\" has no pages of 4096 bytes";
	peer->said_pgsizes = pgsizes != NULL;
	if (multi != NULL && !json_is_boolean(multi))
		return "\"write_multiple\" is no boolean";
	peer->multi = json_is_true(multi);
	return NULL;
}

const char *
vfu_version_parse(const char *json, size_t len, struct vfu_peer *peer)
{
	const char *why = NULL;
	const json_t *caps;
	json_t *root;

	*peer = (struct vfu_peer){.max_fds = VFU_DEFAULT_FDS,
		.max_xfer = VFU_DEFAULT_XFER,
		.max_maps = VFU_DEFAULT_MAPS};
	if (len == 0)
		return NULL;
	if (json[len - 1] != '\0')
		return "its data does not end with NUL";
	root = json_loadb(json, strlen(json), JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(root)) {
		json_decref(root);
		return "its data is no JSON object";
	}
	caps = json_object_get(root, "capabilities");
	if (caps != NULL)
		why = capabilities(caps, peer);
	json_decref(root);
	return why;
}

char *
vfu_version_print(const struct vfu_peer *peer)
{
	json_t *caps = json_object(), *root = json_pack("{so}", "capabilities", caps);
	char *text;

	if (peer == NULL || peer->said_fds)
		json_object_set_new(caps, "max_msg_fds", json_integer(VFU_MAX_FDS));
	if (peer == NULL || peer->said_xfer)
		json_object_set_new(caps, "max_data_xfer_size", json_integer(VFU_MAX_XFER));
	if (peer == NULL || peer->said_maps)
		json_object_set_new(caps, "max_dma_maps", json_integer(VFU_MAX_MAPS));
	if (peer == NULL || peer->said_pgsizes)
		json_object_set_new(caps, "pgsizes", json_integer(VFU_PGSIZES));
	if (peer == NULL || peer->multi)
		json_object_set_new(caps, "write_multiple", json_true());
	text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return text;
}
