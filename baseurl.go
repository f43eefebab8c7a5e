package keywright

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/keywright/keywright/internal/loopback"
)

// parseBaseURL checks an API's base URL: absolute https, or http to a
// loopback host, with nothing but a host and a path. reason names the rule
// that raw breaks and repeats nothing that could be a secret.
func parseBaseURL(raw string) (u *url.URL, reason string) {
	u, reason = parseURL(raw)
	if reason != "" {
		return nil, reason
	}
	switch {
	case u.Scheme == "http" && !loopback.Is(u.Hostname()):
		return nil, `scheme "http" is not allowed; use https (plain http only to a loopback host)`
	case u.RawQuery != "" || u.ForceQuery:
		return nil, "must not contain a query"
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, "must not contain a fragment"
	}
	if u.RawPath != "" {
		return nil, "must not contain an encoded slash"
	}
	u.Host = strings.ToLower(u.Host)
	u.Path = strings.TrimRight(u.Path, "/")
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return nil, `must not contain "." or ".." in its path`
		}
	}
	return u, ""
}

// parseURL checks what base URLs and webhook URLs have in common.
func parseURL(raw string) (u *url.URL, reason string) {
	for i := range len(raw) {
		switch c := raw[i]; {
		case c < 0x20 || c == 0x7f:
			return nil, "contains control byte 0x" + hexByte(c) + " at byte " + itoa(i)
		case c == '\\':
			return nil, `contains "\"`
		case c == ' ':
			return nil, "contains a space at byte " + itoa(i)
		}
	}
	scheme, rest, ok := strings.Cut(raw, ":")
	switch {
	case !ok || strings.ContainsAny(scheme, "/.@"):
		return nil, `missing "https://"`
	case !strings.HasPrefix(rest, "//"):
		if strings.Trim(rest[:min(len(rest), 5)], "0123456789") == "" || strings.Contains(rest, "@") {
			return nil, `missing "https://"` // host:port, or user:password@host
		}
		return nil, "not a hierarchical URL"
	}
	switch strings.ToLower(scheme) {
	case "https", "http":
	default:
		return nil, "scheme " + strconv.Quote(shorten(scheme, 20)) + " is not allowed; use https"
	}
	authority, _, _ := strings.Cut(rest[2:], "/")
	authority, _, _ = strings.Cut(authority, "?")
	authority, _, _ = strings.Cut(authority, "#")
	switch {
	case strings.Contains(authority, "@"):
		return nil, "must not contain user info (value not shown)"
	case authority == "":
		return nil, "missing host"
	}
	if reason := hostProblem(authority); reason != "" {
		return nil, reason
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, "cannot be parsed" // the error would repeat the text
	}
	return u, ""
}

// hostProblem names what is wrong with host or host:port.
func hostProblem(authority string) string {
	host, port, hasPort := authority, "", false
	if strings.HasPrefix(authority, "[") {
		end := strings.IndexByte(authority, ']')
		if end < 0 {
			return "IPv6 address is not closed"
		}
		host = authority[1:end]
		port, hasPort = strings.CutPrefix(authority[end+1:], ":")
		if strings.Contains(host, "%") {
			return "must not contain an IPv6 zone"
		}
		if addr, err := netip.ParseAddr(host); err != nil || !addr.Is6() {
			return "host is not an IPv6 address"
		}
		if !hasPort && authority[end+1:] != "" {
			return "IPv6 address is followed by other text"
		}
	} else {
		host, port, hasPort = strings.Cut(authority, ":")
		if reason := nameProblem(host); reason != "" {
			return reason
		}
	}
	if !hasPort {
		return ""
	}
	if port == "" {
		return "empty port"
	}
	if strings.Trim(port, "0123456789") != "" {
		return "port is not a number"
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "port " + shorten(port, 10) + " is out of range 1-65535"
	}
	return ""
}

func nameProblem(host string) string {
	if host == "" {
		return "missing host"
	}
	if len(host) > 253 {
		return "host is longer than 253 bytes"
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	// Resolvers read 127.1, 0x7f.1 and 2130706433 as addresses; nobody who
	// writes one into a config file means well.
	if last := strings.ToLower(labels[len(labels)-1]); last != "" &&
		(strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x")) {
		if addr, err := netip.ParseAddr(host); err != nil || !addr.Is4() {
			return "host is not a canonical IPv4 address"
		}
	}
	for _, label := range labels {
		switch {
		case label == "":
			return "host has an empty label"
		case len(label) > 63:
			return "host label is longer than 63 bytes"
		case label[0] == '-' || label[len(label)-1] == '-':
			return `host label must not start or end with "-"`
		}
		for i := range len(label) {
			c := label[i]
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return "host contains a character that is not a letter, a digit or a hyphen"
			}
		}
	}
	return ""
}

// webhookURLProblem names what keeps raw from being a webhook's target: the
// provider calls it from outside, so it must be https and public. A provider
// on loopback, such as a fake one, may call loopback.
func webhookURLProblem(raw string, loopbackProvider bool) string {
	u, reason := parseURL(raw)
	if reason != "" {
		return reason
	}
	host := u.Hostname()
	loopback := loopback.Is(host)
	if loopback && loopbackProvider {
		return ""
	}
	switch {
	case u.Scheme == "http":
		return `scheme "http" is not allowed; use https`
	case strings.Contains(raw, "#"):
		return "must not contain a fragment"
	case loopback:
		return "host " + host + " is loopback"
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	switch addr = addr.Unmap(); {
	case addr.IsPrivate():
		return "host " + host + " is a private address"
	case addr.IsLinkLocalUnicast(), addr.IsLinkLocalMulticast():
		return "host " + host + " is link-local"
	case addr.IsUnspecified(), addr.IsMulticast():
		return "host " + host + " is not a public address"
	}
	return ""
}

func itoa(n int) string { return strconv.Itoa(n) }

func hexByte(c byte) string { return strconv.FormatUint(uint64(c)+0x100, 16)[1:] }

// plural returns "1 byte" or "2 bytes".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return itoa(n) + " " + noun + "s"
}
