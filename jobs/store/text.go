package store

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of texts, in bytes.
const (
	maxName = 200
	maxText = 2000
)

// clean makes a text that both databases take and that people can look at on
// one line: valid UTF-8 without control characters, of at most so many bytes.
func clean(text string, limit int) string {
	plain := strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r == utf8.RuneError || unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r):
			return '\uFFFD'
		}
		return r
	}, text)
	if len(plain) <= limit {
		return plain
	}
	const more = "…"
	cut := limit - len(more)
	for cut > 0 && !utf8.RuneStart(plain[cut]) {
		cut--
	}
	return plain[:cut] + more
}
