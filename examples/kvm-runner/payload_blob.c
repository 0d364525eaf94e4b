/* SPDX-License-Identifier: BSD-2-Clause */
/* Takes the payload's image into the runner. PAYLOAD_FILE is its path, from the build. */
#include "payload_blob.h"

__asm__(".pushsection .rodata\n"
	".balign 16\n"
	".global payload_blob\n"
	"payload_blob: .incbin \"" PAYLOAD_FILE "\"\n"
	"payload_blob_end: .balign 4\n"
	".global payload_blob_bytes\n"
	"payload_blob_bytes: .long payload_blob_end - payload_blob\n"
	".popsection\n");
