// Clidoc writes docs/cli.md and docs/cli.schema.json.
//
//	go run ./internal/clidoc
//
// What is said in docs/cli.md is in guide.md, in this directory. The lines of
// its blocks "console" that begin with "$ " are run, with the program built from
// this repository against the fake providers, and what they print is added; a
// line that begins with "# " is run and left out. The reference of the commands
// comes from the commands themselves.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed guide.md
var guide string

func main() {
	if err := run(context.Background(), "."); err != nil {
		fmt.Fprintln(os.Stderr, "clidoc:", err)
		os.Exit(1)
	}
}

// run writes the documents into the repository at root.
func run(ctx context.Context, root string) error {
	files, err := documents(ctx, root)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// documents returns the documents, by their paths in the repository.
func documents(ctx context.Context, root string) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "clidoc")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // as the program prints it
		return nil, err
	}
	program := filepath.Join(dir, "bin", "keywright")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, "./cmd/keywright")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	schema, err := exec.CommandContext(ctx, program, "schema").Output()
	if err != nil {
		return nil, err
	}
	text, err := sessions(ctx, guide, dir)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"docs/cli.md": []byte(text + reference()), "docs/cli.schema.json": schema}, nil
}
