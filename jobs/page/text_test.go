package page

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "billing": "billing", "  a  ": "a", "a\r\nb": "a  b", "a\x00b": "a\uFFFDb", "a\u202Eb": "a\uFFFDb", "a\u200Bb": "a\uFFFDb", "a\xffb": "a\uFFFDb",
		"12345678901": "1234567890…", "1234567890": "1234567890", "1234567890  ": "1234567890", "éééééééééééé": "éééééééééé…",
		"e\u0301": "e\u0301", "e\u0301\u0301\u0301\u0301\u0301x": "e\u0301\u0301\u0301x", "\u0301": "\u0301", "שלום": "שלום", "😀": "😀", "\u3164": "\uFFFD",
	} {
		require.Equal(t, want, clean(in, 10), "%q", in)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\u202Eb\x00\xff", 3)
	f.Add(strings.Repeat("\u0301", 50), 10)
	f.Fuzz(func(t *testing.T, text string, most int) {
		most = min(max(most, 0), 1000)
		out := clean(text, most)
		require.True(t, utf8.ValidString(out))
		require.LessOrEqual(t, utf8.RuneCountInString(out), most+1)
		for _, r := range out {
			require.False(t, hidden(r), "%U", r)
		}
		require.Equal(t, out, clean(out, most+1), "what is clean stays as it is")
	})
}
