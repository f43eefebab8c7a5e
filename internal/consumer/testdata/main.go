// Consumer uses keywright from a module of its own, through its public face.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

func main() {
	fake, err := keywrighttest.NewRicloud()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer fake.Close()
	rc, err := keywright.NewRicloud(keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	key, err := rc.Key.RotateWithID(context.Background(), 1, keywright.KeyRotateParams{})
	if err != nil || key.Token.Reveal() != fake.TokenOf(1) {
		fmt.Fprintln(os.Stderr, "rotated:", err)
		os.Exit(1)
	}
	if _, err := rc.Key.Retrieve(context.Background(), 99); !errors.Is(err, keywright.ErrNotFound) {
		fmt.Fprintln(os.Stderr, "want not found:", err)
		os.Exit(1)
	}
	fmt.Println("the outside module works")
}
