#!/bin/sh
# An authenticator in a few lines: users in a text file, `name:password[:path]` each, '#' for comments. In dmail.conf:
#     authent_method external
#     authent_process /etc/dmail/authenticators/shell.sh /etc/dmail/users
# Passwords lie there in clear: chmod 600, and see python.py for hashed ones. Not for thousands of users.
users=${1:-users}
while read -r command user password rest; do
  case $command in
  exit | quit) echo "+OK goodbye"; exit 0 ;;
  check | lookup) ;;
  *) echo "-ERR unknown command"; continue ;;
  esac
  [ -r "$users" ] || { echo "-DEAD no user file"; continue; }
  found=
  while IFS=: read -r name secret path; do
    case $name in '#'* | '') continue ;; esac
    [ "$name" = "$user" ] && [ -n "$secret" ] && { [ "$command" = lookup ] || [ "$secret" = "$password" ]; } && found="+OK $name ${path:-config} 0"
  done <"$users"
  case $command in check) wrong="password wrong or not a valid user" ;; *) wrong="does not exist" ;; esac
  echo "${found:--ERR $wrong}"
done
