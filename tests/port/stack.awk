# The deepest chain of calls in a call graph of gcc (-fcallgraph-info=su), in bytes of stack.
# Prints that number and the chain. A call through a pointer ends a chain: what an allocator, a kv_io
# or a callback needs comes on top. A cycle is an error, since recursion has no bound, unless one of its
# functions is in the variable `bounded`: then one turn is counted.
function unquote(s) { sub(/^[^"]*"/, "", s); sub(/".*/, "", s); return s }
/^node:/ {
    name = unquote(substr($0, index($0, "title:")))
    label = $0
    if (match(label, /[0-9]+ bytes \([a-z,]+\)/)) {
        text = substr(label, RSTART, RLENGTH)
        size[name] = text + 0
        if (text ~ /dynamic/ && text !~ /bounded/) { print "unbounded frame: " name; failed = 1 }
    }
}
/^edge:/ {
    from = unquote(substr($0, index($0, "sourcename:")))
    to = unquote(substr($0, index($0, "targetname:")))
    calls[from, ++count[from]] = to
}
function deepest(f,    i, d, best, to) {
    if (f in depth) return depth[f]
    if (f in open) {
        short = f
        sub(/^.*:/, "", short)
        if (index(" " bounded " ", " " short " ") == 0) { print "recursion: " f; failed = 1 }
        return 0
    }
    open[f] = 1
    best = 0
    for (i = 1; i <= count[f]; i++) {
        to = calls[f, i]
        d = deepest(to)
        if (d > best) { best = d; next_of[f] = to }
    }
    delete open[f]
    depth[f] = best + size[f]
    return depth[f]
}
END {
    top = ""
    for (f in size) if (deepest(f) > depth[top] + 0) top = f
    chain = ""
    for (f = top; f != ""; f = next_of[f]) { short = f; sub(/^.*:/, "", short); chain = chain (chain == "" ? "" : " > ") short " " size[f] + 0 }
    print depth[top] + 0, chain
    exit failed
}
