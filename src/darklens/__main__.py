from darklens.cli import main

main()
