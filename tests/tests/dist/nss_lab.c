/* A module of glibc's name service switch that knows one name, which DNS does not: nas.corp.internal. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <nss.h>
#include <string.h>

enum nss_status _nss_lab_gethostbyname4_r(const char *name, struct gaih_addrtuple **found, char *buffer,
                                          size_t length, int *error, int *host_error, int32_t *ttl)
{
    static const char known[] = "nas.corp.internal";
    struct gaih_addrtuple *tuple = (struct gaih_addrtuple *)buffer;
    char *copy = buffer + sizeof *tuple;

    (void)ttl;
    if (strncmp(name, known, sizeof known - 1) != 0) {
        *host_error = HOST_NOT_FOUND;
        return NSS_STATUS_NOTFOUND;
    }
    if (length < sizeof *tuple + sizeof known) {
        *error = ERANGE;
        *host_error = NETDB_INTERNAL;
        return NSS_STATUS_TRYAGAIN;
    }
    memset(tuple, 0, sizeof *tuple);
    tuple->name = memcpy(copy, known, sizeof known);
    tuple->family = AF_INET;
    inet_pton(AF_INET, "10.20.0.10", tuple->addr);
    if (*found)
        **found = *tuple;
    else
        *found = tuple;
    return NSS_STATUS_SUCCESS;
}
