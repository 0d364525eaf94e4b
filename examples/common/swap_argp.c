/* SPDX-License-Identifier: BSD-2-Clause */
/* --swap and --swap-plain on a command line, by argp. */
#include "common/swap_list.h"

enum option_key { KEY_SWAP = 256, KEY_SWAP_PLAIN };

static const struct argp_option option_table[] = {
	{ "swap", KEY_SWAP, "PATH[:SIZE]|URI", 0,
	  "where compressed pages go that do not fit into the budget; may be given again, the first ones are "
	  "filled first. PATH is a folder (a file without a name is made there, gone with this process), a file "
	  "(made if there is none) or a block device; what is on these is overwritten. URI is an NBD server, such "
	  "as nbd+unix:///EXPORT?socket=/path or nbd://host. What outlives this process is enciphered",
	  1 },
	{ "swap-plain", KEY_SWAP_PLAIN, NULL, 0, "with --swap: do not encipher", 1 },
	{ NULL, 0, NULL, 0, NULL, 0 },
};

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct swap_options *o = state->input;

	switch (key) {
	case KEY_SWAP:
		if (o->count == SWAP_LIST_MOST)
			argp_error(state, "--swap: more than %u devices", SWAP_LIST_MOST);
		o->text[o->count++] = text;
		break;
	case KEY_SWAP_PLAIN: o->plain = true; break;
	case ARGP_KEY_END:
		if (o->plain && o->count == 0)
			argp_error(state, "--swap-plain needs --swap: it says how that is written");
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

const struct argp swap_argp = { option_table, parse_option, NULL, NULL, NULL, NULL, NULL };
