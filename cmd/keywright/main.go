// Keywright is the command line of the module: it creates, lists, updates and
// rotates API keys of ricloud and Ace Data Cloud, and rotates them into files
// and secret stores without ever losing one. See docs/cli.md.
package main

import (
	"os"

	"github.com/keywright/keywright/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
