package jobfile_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "child" {
		os.Exit(child(os.Args[2]))
	}
	goleak.VerifyTestMain(m)
}

// child reads a token and ends with the exit code that the token ends with;
// it fails if the token is anywhere else.
func child(code string) int {
	token, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	token = strings.TrimSpace(token)
	for _, v := range append(os.Environ(), os.Args...) {
		if token == "" || strings.Contains(v, token) {
			return 99
		}
	}
	fmt.Fprintln(os.Stderr, "I was given", token)
	n := 0
	_, _ = fmt.Sscan(code, &n)
	return n
}
