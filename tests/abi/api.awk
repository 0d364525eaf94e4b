# Prints one line for each VMEM_API function of the headers given: <node> <name> <file>:<line> <missing doc tags>
# A function between #ifdef VMEM_EXPERIMENTAL and its #endif belongs to node VMEM_EXPERIMENTAL. The doc
# comment that ends right above the function must say @threads and @since.
FNR == 1 {
	depth = experimental = 0
	comment = ""
}
/^[ \t]*#[ \t]*if/ {
	depth++
	if (/VMEM_EXPERIMENTAL/)
		experimental = depth
}
/^[ \t]*#[ \t]*endif/ {
	if (depth == experimental)
		experimental = 0
	depth--
}
/^\/\*\*/ {
	comment = ""
	in_comment = 1
}
in_comment {
	comment = comment $0
	if (/\*\//)
		in_comment = 0
	next
}
/^VMEM_API[ \t]/ {
	where = FILENAME ":" FNR
	declaration = ""
	declaring = 1
}
declaring {
	declaration = declaration " " $0
	if (index(declaration, "(")) {
		name = declaration
		sub(/\(.*/, "", name)
		sub(/.*[ \t*]/, "", name)
		tags = ""
		if (comment !~ /@threads [a-z]/)
			tags = tags " @threads"
		if (comment !~ /@since [0-9]+\.[0-9]/)
			tags = tags " @since"
		print(experimental ? "VMEM_EXPERIMENTAL" : "VMEM_1.0", name, where tags)
		declaring = 0
		comment = ""
	}
}
