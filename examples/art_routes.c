/* art_routes.c - a routing table: the longest stored prefix of an address decides where a packet goes

   A key is a network written as a string of '0' and '1', one a bit, as long as the network's mask:
   10.0.0.0/8 is "00001010". The address is the same with all 32 bits, and kv_art_longest_prefix finds
   the most specific network that it belongs to. The empty key is the default route. */
#define KV_ART_IMPLEMENTATION
#include "../kv_art.h"
#include <stdio.h>

/* "10.1.2.3" as 32 characters. */
static kv_slice bits_of(const char *address, size_t count, char *out)
{
    unsigned part[4] = { 0, 0, 0, 0 };
    (void)sscanf(address, "%u.%u.%u.%u", &part[0], &part[1], &part[2], &part[3]);
    for (unsigned i = 0; i < 32; i++) out[i] = (char)('0' + (part[i / 8] >> (7 - i % 8) & 1));
    return kv_bytes(out, count);
}

static bool add_route(kv_art *table, const char *network, unsigned bits, const char *next_hop)
{
    char memory[32];
    return kv_art_set(table, bits_of(network, bits, memory), kv_cstr(next_hop)) == KV_OK;
}

static void route(kv_art *table, const char *address)
{
    char    memory[32];
    kv_pair found;
    if (kv_art_longest_prefix(table, bits_of(address, 32, memory), &found) == KV_OK)
        printf("%-15s -> %.*s (/%u)\n", address, (int)found.value.size, (const char *)found.value.data, (unsigned)found.key.size);
    else printf("%-15s -> no route\n", address);
}

int main(void)
{
    kv_art *table;
    char    memory[32];
    if (kv_art_open(NULL, &table) < 0) return 1;
    route(table, "192.0.2.1");
    if (!add_route(table, "0.0.0.0", 0, "gateway") || !add_route(table, "10.0.0.0", 8, "office")
        || !add_route(table, "10.1.0.0", 16, "laboratory") || !add_route(table, "10.1.2.0", 24, "robots")
        || !add_route(table, "10.1.2.3", 32, "robot three") || !add_route(table, "192.168.0.0", 16, "home")) return 1;
    route(table, "192.0.2.1");
    route(table, "192.168.7.7");
    route(table, "10.200.0.1");
    route(table, "10.1.77.1");
    route(table, "10.1.2.4");
    route(table, "10.1.2.3");
    kv_art_delete(table, bits_of("10.1.2.0", 24, memory));
    printf("the robots' network is gone\n");
    route(table, "10.1.2.4");
    kv_art_close(table);
    return 0;
}
