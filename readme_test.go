package keywright_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestReadmeExamples checks that every Go block of the README and of the
// manuals of rotations, webhooks and jobs is, to the letter, a part of code that is compiled and
// run: an Example function, or a program of examples.
func TestReadmeExamples(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md") + read(t, "docs/rotation.md") + read(t, "docs/webhooks.md") + read(t, "docs/jobs.md")
	marked := regexp.MustCompile("(?s)<!-- example: (\\S+) -->\n```go\n(.*?)```").FindAllStringSubmatch(readme, -1)
	assert.Equal(t, strings.Count(readme, "```go\n"), len(marked), "a Go block without its source")
	for _, m := range marked {
		source, block := m[1], m[2]
		switch pkg, name, ok := strings.Cut(source, "."); {
		case strings.HasSuffix(source, ".go"):
			assert.Contains(t, read(t, source), block, source)
		case ok:
			assert.Contains(t, dedent(read(t, pkg+"/example_test.go"), name), block, source)
		default:
			assert.Contains(t, dedent(read(t, "example_test.go"), source), block, source)
		}
	}
}

// TestReadmeSessions checks that what the README shows of the command line is in
// its manual, whose sessions are run when it is written.
func TestReadmeSessions(t *testing.T) {
	t.Parallel()
	manual := read(t, "docs/cli.md")
	shown := regexp.MustCompile("(?s)```console\n.*?```").FindAllString(read(t, "README.md"), -1)
	assert.NotEmpty(t, shown)
	for _, session := range shown {
		assert.Contains(t, manual, session)
	}
}

// TestReadmeNamesWhatExists checks the links and the tests that it names.
func TestReadmeNamesWhatExists(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md")
	for dir, text := range map[string]string{".": readme, "docs": read(t, "docs/rotation.md") + read(t, "docs/webhooks.md") + read(t, "docs/cli.md") + read(t, "docs/jobs.md")} {
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(text, -1) {
			_, err := os.Stat(filepath.Join(dir, m[1]))
			require.NoError(t, err)
		}
	}
	var tests strings.Builder
	for _, name := range []string{"matrix_test.go", "keys_test.go", "wire_test.go", "errors_test.go", "retry_test.go", "pagination_test.go", "leak_test.go", "badinput_test.go"} {
		tests.WriteString(read(t, name))
	}
	named := regexp.MustCompile("`(Test[A-Za-z_]+)").FindAllStringSubmatch(readme, -1)
	assert.NotEmpty(t, named)
	for _, m := range named {
		assert.Contains(t, tests.String(), "func "+m[1]+"(")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// dedent returns the body of a function without its indentation.
func dedent(source, function string) string {
	_, rest, _ := strings.Cut(source, "\nfunc "+function+"() {\n")
	body, _, _ := strings.Cut(rest, "\n}\n")
	return strings.TrimPrefix(strings.ReplaceAll("\n"+body, "\n\t", "\n"), "\n") + "\n"
}
