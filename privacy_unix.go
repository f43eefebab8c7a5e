//go:build unix

package keywright

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// privacyProblem names why a file is not fit to hold a secret. Root may own it
// too: that is how secrets are mounted into containers.
func privacyProblem(path string, info fs.FileInfo) string {
	if mode := info.Mode().Perm(); mode&0o006 != 0 {
		return fmt.Sprintf("mode %04o lets others read it; run: chmod 600 %s", mode, strconv.Quote(path))
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return ownerProblem(int(st.Uid), os.Getuid())
}

func ownerProblem(owner, us int) string {
	if owner == us || owner == 0 {
		return ""
	}
	return fmt.Sprintf("owned by uid %d, not by you (uid %d)", owner, us)
}
