//! restic as a child process: command lines, JSON output, exit codes.
