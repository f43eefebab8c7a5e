package sink_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/internal/durable/memfs"
	"github.com/keywright/keywright/rotation/sink"
)

func TestDotenvSet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ old, was, token, want string }{
		// Where it is absent.
		{"", "", "tok", "TOKEN=tok\n"},
		{"A=1", "", "tok", "A=1\nTOKEN=tok\n"},
		{"A=1\r\n", "", "tok", "A=1\r\nTOKEN=tok\r\n"},
		{"A=1\r\nB=2", "", "tok", "A=1\r\nB=2\r\nTOKEN=tok\r\n"},
		{"\ufeff", "", "tok", "\ufeffTOKEN=tok\n"},
		{"# TOKEN=x\n#TOKEN=x\nXTOKEN=x\nTOKEN2=x\nTOKEN.X=x\nTOKEN-X=x\nTOKEN\nexport TOKEN\n", "", "tok",
			"# TOKEN=x\n#TOKEN=x\nXTOKEN=x\nTOKEN2=x\nTOKEN.X=x\nTOKEN-X=x\nTOKEN\nexport TOKEN\nTOKEN=tok\n"},
		{"token=x\n", "", "tok", "token=x\nTOKEN=tok\n"},
		// Where the line is, and what is around it.
		{"A=1\nTOKEN=old\nB=2", "old", "tok", "A=1\nTOKEN=tok\nB=2"},
		{"TOKEN=old", "old", "tok", "TOKEN=tok"},
		{"\ufeffTOKEN=old\r\nB=2\r\n", "old", "tok", "\ufeffTOKEN=tok\r\nB=2\r\n"},
		{"  export\tTOKEN=old  \n", "old", "tok", "  export\tTOKEN=tok  \n"},
		{"TOKEN = old # note\n", "old", "tok", "TOKEN = tok # note\n"},
		{"TOKEN=old#1\n", "old#1", "tok", "TOKEN=tok\n"},
		{"TOKEN=\n", "", "tok", "TOKEN=tok\n"},
		{"TOKEN= # none yet\n", "", "tok", "TOKEN=tok # none yet\n"},
		{"TOKEN=\r\nB=1\r\n", "", "tok", "TOKEN=tok\r\nB=1\r\n"},
		{"export=1\nTOKEN=old\n", "old", "tok", "export=1\nTOKEN=tok\n"},
		{"export =1\nTOKEN=old\n", "old", "tok", "export =1\nTOKEN=tok\n"},
		// Quotes.
		{"TOKEN='old'\n", "old", "tok", "TOKEN='tok'\n"},
		{"TOKEN=\"old\" # note\n", "old", "tok", "TOKEN=\"tok\" # note\n"},
		{"TOKEN=\"\"\n", "", "tok", "TOKEN=\"tok\"\n"},
		{"TOKEN=old\n", "old", "t$k", "TOKEN='t$k'\n"},
		{"TOKEN=\"old\"\n", "old", "t$k", "TOKEN='t$k'\n"},
		{"TOKEN=\"old\"\n", "old", "t'k", "TOKEN=\"t'k\"\n"},
		{"TOKEN='old'\n", "old", "t'$k\\", "TOKEN=\"t'\\$k\\\\\"\n"},
		{"TOKEN=old\n", "old", "#tok", "TOKEN='#tok'\n"},
		{"TOKEN=old\n", "old", "tok\\", "TOKEN=\"tok\\\\\"\n"},
		{"TOKEN=\"a\\$b\\\\c\\\"d\\`e\"\n", "a$b\\c\"d`e", "tok", "TOKEN=\"tok\"\n"},
		{"TOKEN=old\n", "old", "aZ09_-./:@%+,=", "TOKEN=aZ09_-./:@%+,=\n"},
		// What looks like the variable inside of another's value.
		{"K='-----\nTOKEN=no\n-----'\nTOKEN=old\n", "old", "tok", "K='-----\nTOKEN=no\n-----'\nTOKEN=tok\n"},
		{"K=\"a \\\" \nTOKEN=no\n\" # \"\nTOKEN=old\n", "old", "tok", "K=\"a \\\" \nTOKEN=no\n\" # \"\nTOKEN=tok\n"},
		{"K=`a\nTOKEN=no\n`\nTOKEN=old\n", "old", "tok", "K=`a\nTOKEN=no\n`\nTOKEN=tok\n"},
		{"K='it'\\''s'\nTOKEN=old\n", "old", "tok", "K='it'\\''s'\nTOKEN=tok\n"},
		{"K='a'\"b\nTOKEN=no\n\"\nTOKEN=old\n", "old", "tok", "K='a'\"b\nTOKEN=no\n\"\nTOKEN=tok\n"},
		{"K=it's\nTOKEN=old\nL=it's\n", "old", "tok", "K=it's\nTOKEN=tok\nL=it's\n"},
		{"K: 'x'\nTOKEN=old\n", "old", "tok", "K: 'x'\nTOKEN=tok\n"},
	} {
		w, ctx := disk(t, c.old)
		mustWrite(t, ctx, sink.Dotenv(path, "TOKEN"), c.was, c.token)
		b, _ := w.ReadFile(path)
		require.Equal(t, c.want, string(b), "%q", c.old)
	}
}

func TestDotenvRefuses(t *testing.T) {
	t.Parallel()
	for content, reason := range map[string]string{
		"TOKEN=canary\nA=1\nexport TOKEN=canary\n": "twice, in lines 1 and 3",
		"K='a\nb'\nTOKEN=x\nTOKEN=x\n":             "twice, in lines 3 and 4",
		"TOKEN='canary\n":                          "line 1: has a quote that is not closed",
		"A=1\nK=\"canary\nTOKEN=x\n":               "line 2: has a quote that is not closed",
		"K='C:\\'\nTOKEN=canary\n":                 "line 1: has a backslash before a single quote",
		"TOKEN: canary\n":                          "line 1: sets the variable with a colon",
		"TOKEN=$CANARY\n":                          "line 1: has a value with quotes",
		"TOKEN=#canary\n":                          "line 1: has a value with quotes",
		"TOKEN=\"${CANARY}\"\n":                    "refers to another variable",
		"TOKEN=\"canary\\n\"\n":                    "escape",
		"TOKEN=`canary`\n":                         "backquotes",
		"TOKEN='canary'canary\n":                   "behind the closing quote",
		"TOKEN='canary' canary\n":                  "behind the closing quote",
		"TOKEN='canary'\"canary\"\n":               "behind the closing quote",
		"TOKEN=canary canary\n":                    "what it holds is no token: contains a space",
		"TOKEN='canary\ncanary'\n":                 "contains a control character",
		"A=1\rTOKEN=canary\n":                      "line 1: has a carriage return without a newline",
		"A\x00=\x001\x00":                          "line 1: has a NUL byte",
	} {
		w, ctx := disk(t, content)
		s := sink.Dotenv(path, "TOKEN")
		_, err := s.Read(ctx)
		mustFail(t, err, sink.ErrRefused, reason)
		mustFail(t, s.CompareAndWrite(ctx, sink.Reading{}, secret(newToken)), sink.ErrRefused, reason)
		mustFail(t, s.(sink.Tester).Test(ctx), sink.ErrRefused, reason)
		b, _ := w.ReadFile(path)
		require.Equal(t, content, string(b))
	}
	for _, name := range []string{"", "1A", "A-B", "A B", "A=B", "A\n", "É"} {
		_, ctx := disk(t, "")
		_, err := sink.Dotenv(path, name).Read(ctx)
		mustFail(t, err, sink.ErrRefused, "variable's name")
	}
}

// changedLines checks that a text became another by a change of one line, or
// by up to added new ones in one place.
func changedLines(t *testing.T, before, after string, added int) {
	t.Helper()
	before, after = strings.TrimPrefix(before, "\ufeff"), strings.TrimPrefix(after, "\ufeff")
	a, b := slices.Collect(strings.Lines(before)), slices.Collect(strings.Lines(after))
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if len(a) == 1 && len(b) > 1 { // the newline that was missing
		require.Equal(t, strings.TrimSuffix(strings.TrimSuffix(b[0], "\n"), "\r"), strings.TrimSuffix(a[0], "\r"))
		a, b = a[1:], b[1:]
	}
	require.LessOrEqual(t, len(a), 1, "%q became %q", before, after)
	require.LessOrEqual(t, len(b), max(added, 1), "%q became %q", before, after)
}

// fuzzable makes a token of anything.
func fuzzable(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}

// fuzzWrite writes a token to a sink, and returns what the file is then, or
// false if that was refused.
func fuzzWrite(t *testing.T, s sink.Sink, before, token string) (string, bool) {
	w := memfs.New()
	w.MkdirAll(dir)
	w.WriteFile(path, []byte(before), 0o600)
	ctx := durable.NewContext(t.Context(), w)
	previous, err := s.Read(ctx)
	if err == nil {
		err = s.CompareAndWrite(ctx, previous, secret(token))
	}
	b, _ := w.ReadFile(path)
	if err != nil {
		require.ErrorIs(t, err, sink.ErrRefused)
		require.Equal(t, before, string(b), "refused, and changed")
		return "", false
	}
	require.NoError(t, s.Confirm(ctx, secret(token)))
	return string(b), true
}

func FuzzDotenv(f *testing.F) {
	for _, s := range []string{"", "A=1", "TOKEN=x # c\r\n", "K='\nTOKEN=y'\nexport TOKEN=\"x\"", "\ufeffTOKEN='x'\n", "TOKEN= #", "TOKEN=#x"} {
		f.Add(s, "t'o$k\"e`n\\")
	}
	f.Fuzz(func(t *testing.T, before, token string) {
		if token = fuzzable(token); token == "" {
			return
		}
		after, ok := fuzzWrite(t, sink.Dotenv(path, "TOKEN"), before, token)
		if ok {
			changedLines(t, before, after, 1)
		}
	})
}
