// Package loopback knows which hosts are this machine: plain http is for these
// alone.
package loopback

import (
	"net/netip"
	"strings"
)

// Is reports whether host can only be this machine.
func Is(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
