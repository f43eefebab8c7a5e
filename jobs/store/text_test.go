package store

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "plain", "a\nb", "\x00\xff", "\u202e\x1b[31m", strings.Repeat("é", 50)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		const limit = 40
		got := clean(text, limit)
		require.LessOrEqual(t, len(got), limit)
		require.True(t, utf8.ValidString(got))
		require.False(t, strings.ContainsFunc(got, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }))
		require.Equal(t, got, clean(got, limit))
		if len(text) <= limit && !strings.ContainsFunc(text, func(r rune) bool {
			return r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
		}) {
			require.Equal(t, text, got)
		}
	})
}

func TestRebind(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                       "",
		"a = ? AND b = ?":        "a = $1 AND b = $2",
		"a = '?' AND b = ?":      "a = '?' AND b = $1",
		"a = 'it''s ?' AND ? ''": "a = 'it''s ?' AND $1 ''",
		"?????? ?????":           "$1$2$3$4$5$6 $7$8$9$10$11",
	} {
		assert.Equal(t, want, postgresDialect().rebind(in))
		assert.Equal(t, in, sqliteDialect().rebind(in))
	}
}

func TestMomentRefusesText(t *testing.T) {
	t.Parallel()
	require.Error(t, moment{}.Scan("2026-11-22"))
}
