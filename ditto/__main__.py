from ditto.cli import main

main()
