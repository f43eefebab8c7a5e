// Coverage checks a coverage profile against what the project demands: 92 % of
// all statements, 97 % where a mistake costs a key.
package main

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

const (
	overall  = 92.0
	critical = 97.0
)

var criticalFiles = []string{"errors.go", "retry.go", "secret.go", "optional.go", "pagination.go"}

type count struct{ covered, total int }

func (c count) percent() float64 { return 100 * float64(c.covered) / float64(max(1, c.total)) }

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: coverage PROFILE")
		os.Exit(2)
	}
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		os.Exit(1)
	}
}

func check(profile string) error {
	f, err := os.Open(profile)
	if err != nil {
		return err
	}
	defer f.Close()
	// A block appears once for each test binary; it is covered if any ran it.
	blocks := make(map[string]struct {
		statements int
		ran        bool
	})
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var statements, hits int
		where, rest, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.HasPrefix(where, "mode:") {
			continue
		}
		if _, err := fmt.Sscan(rest, &statements, &hits); err != nil {
			return err
		}
		b := blocks[where]
		b.statements, b.ran = statements, b.ran || hits > 0
		blocks[where] = b
	}
	if err := lines.Err(); err != nil {
		return err
	}
	var all count
	files := make(map[string]count)
	for where, b := range blocks {
		file, _, _ := strings.Cut(where, ":")
		c := files[file]
		c.total += b.statements
		all.total += b.statements
		if b.ran {
			c.covered += b.statements
			all.covered += b.statements
		}
		files[file] = c
	}
	var short []string
	for file, c := range files {
		if path.Dir(file) == "github.com/keywright/keywright" && slices.Contains(criticalFiles, path.Base(file)) {
			fmt.Printf("%5.1f %%  %s\n", c.percent(), path.Base(file))
			if c.percent() < critical {
				short = append(short, path.Base(file))
			}
		}
	}
	fmt.Printf("%5.1f %%  overall\n", all.percent())
	if all.percent() < overall {
		short = append(short, "overall")
	}
	if len(short) > 0 {
		return fmt.Errorf("too low: %s", strings.Join(short, ", "))
	}
	return nil
}
